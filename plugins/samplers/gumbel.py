"""Sampling by temperature alone, without a softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from framework.toolkit.samplers.refusals import refusal
from framework.toolkit.samplers.selection import argmax_rows, best_rows, gumbel_argmax, gumbel_best
from framework.toolkit.samplers.stated import masked_softmax
from framework.toolkit.samplers.temperature import RowTemperatures, Temperature

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@SAMPLERS.register("gumbel")
class Gumbel(Sampler):
    """Temperature sampling by the Gumbel-max trick; rows of temperature 0 take the most likely token.

    argmax(softmax(logits / t) / E) with E ~ Exp(1) draws from the softmax (the exponential race; Gumbel, 1954; Maddison
    et al., "A* Sampling", NeurIPS 2014). It is computed in log space. A batch of greedy rows only draws no noise.
    """

    graph_safe = True
    can_shard = True

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        super().__init__(vocab_size, device)
        # The fused kernel reads logits once, writes none, and looks for NaN on the way.
        self.takes_model_dtype = self.checks_finite = device.type == "cuda"

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        return refusal("gumbel", params)

    def prepare(
        self, params: Sequence[SamplingParams], out: RowTemperatures | None = None
    ) -> Temperature | RowTemperatures | None:
        if not self.takes_model_dtype:
            return Temperature.of(params, self.device)
        return RowTemperatures.of(params, self.device, out)

    def sample(
        self,
        logits_RV: Tensor,
        prepared: Temperature | RowTemperatures | None,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
    ) -> Tensor:
        if prepared is None:
            return argmax_rows(logits_RV)
        if isinstance(prepared, RowTemperatures):
            from framework.execution.kernels.cuda.sampling.gumbel import gumbel_argmax as fused_gumbel_argmax

            return fused_gumbel_argmax(logits_RV, prepared.divisor_R, prepared.noise_weight_R, seed_R, position_R)
        logits_RV /= prepared.divisor_R1
        return gumbel_argmax(logits_RV, seed_R, position_R, prepared.noise_weight_R1)

    def sample_shard(
        self,
        logits_RW: Tensor,
        prepared: Temperature | RowTemperatures | None,
        seed_R: Tensor,
        position_R: Tensor,
        first_token: int,
    ) -> tuple[Tensor, Tensor]:
        if prepared is None:
            return best_rows(logits_RW, first_token)
        if isinstance(prepared, RowTemperatures):
            from framework.execution.kernels.cuda.sampling.gumbel import gumbel_best as fused_gumbel_best

            divisor_R, weight_R = prepared.divisor_R, prepared.noise_weight_R
            return fused_gumbel_best(logits_RW, divisor_R, weight_R, seed_R, position_R, first_token)
        logits_RW /= prepared.divisor_R1
        return gumbel_best(logits_RW, seed_R, position_R, prepared.noise_weight_R1, first_token)

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        return masked_softmax(logits_V, params)
