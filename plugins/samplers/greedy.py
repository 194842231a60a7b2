"""Always the most likely token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from framework.toolkit.samplers.selection import argmax_rows, best_rows
from framework.toolkit.samplers.stated import masked_softmax
from framework.toolkit.samplers.temperature import RowTemperatures

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@SAMPLERS.register("greedy")
class Greedy(Sampler):
    """The most likely token, the lowest id among equals. For requests with temperature 0 and untouched logits.

    Top-k, top-p and min-p keep the most likely token, so they are accepted and change nothing.
    """

    can_shard = True
    takes_model_dtype = True

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        super().__init__(vocab_size, device)
        self.checks_finite = device.type == "cuda"  # the fused kernel looks for NaN on the way

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        if not params.greedy:
            return f"sampler=greedy ignores temperature={params.temperature}; choose sampler=gumbel or temperature=0"
        if params.has_penalties or params.logit_bias:
            return "sampler=greedy has no penalties and no logit_bias; choose sampler=full"
        return None

    def prepare(self, params: Sequence[SamplingParams], out: RowTemperatures | None = None) -> RowTemperatures | None:
        return RowTemperatures.of(params, self.device, out) if self.checks_finite else None

    def sample(
        self,
        logits_RV: Tensor,
        prepared: RowTemperatures | None,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
    ) -> Tensor:
        if prepared is None:
            return argmax_rows(logits_RV)
        from framework.execution.kernels.cuda.sampling.gumbel import gumbel_argmax

        return gumbel_argmax(logits_RV, prepared.divisor_R, prepared.noise_weight_R, seed_R, position_R)

    def sample_shard(
        self, logits_RW: Tensor, prepared: RowTemperatures | None, seed_R: Tensor, position_R: Tensor, first_token: int
    ) -> tuple[Tensor, Tensor]:
        if prepared is None:
            return best_rows(logits_RW, first_token)
        from framework.execution.kernels.cuda.sampling.gumbel import gumbel_best

        divisor_R, weight_R = prepared.divisor_R, prepared.noise_weight_R
        return gumbel_best(logits_RW, divisor_R, weight_R, seed_R, position_R, first_token)

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        return masked_softmax(logits_V, params)
