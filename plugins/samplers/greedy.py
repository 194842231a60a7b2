"""Always the most likely token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from framework.toolkit.samplers.selection import argmax_rows, best_rows
from framework.toolkit.samplers.stated import masked_softmax

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@SAMPLERS.register("greedy")
class Greedy(Sampler):
    """The most likely token, the lowest id among equals. For requests with temperature 0 and untouched logits.

    Top-k, top-p and min-p keep the most likely token, so they are accepted and change nothing.
    """

    graph_safe = True
    can_shard = True
    takes_model_dtype = True

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        if not params.greedy:
            return f"sampler=greedy ignores temperature={params.temperature}; choose sampler=gumbel or temperature=0"
        if params.has_penalties or params.logit_bias:
            return "sampler=greedy has no penalties and no logit_bias; choose sampler=full"
        return None

    def prepare(self, params: Sequence[SamplingParams], out: None = None) -> None:
        return None

    def sample(
        self, logits_RV: Tensor, prepared: None, seed_R: Tensor, position_R: Tensor, history: TokenHistory
    ) -> Tensor:
        return argmax_rows(logits_RV)

    def sample_shard(
        self, logits_RW: Tensor, prepared: None, seed_R: Tensor, position_R: Tensor, first_token: int
    ) -> tuple[Tensor, Tensor]:
        return best_rows(logits_RW, first_token)

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        return masked_softmax(logits_V, params)
