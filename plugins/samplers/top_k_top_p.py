"""Top-k and top-p without a sort, always the same operations whatever the rows ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from framework.toolkit.samplers import stated
from framework.toolkit.samplers.refusals import refusal
from framework.toolkit.samplers.temperature import MIN_TEMPERATURE
from framework.toolkit.samplers.thresholds import ban_below_top_k, ban_below_top_p
from framework.toolkit.samplers.to_device import columns

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@SAMPLERS.register("top_k_top_p")
class TopKTopP(Sampler):
    """Temperature, then top-k, then top-p over what top-k left: the distribution of `full` by other means.

    Thresholds are searched and not sorted for, as in FlashInfer's kernels (Xing et al., "Sorting-Free GPU Kernels for
    LLM Sampling", flashinfer.ai, 2025), but exactly: tokens equal to the last one kept are kept too. All rows run the
    same operations, 62 passes over the logits, and nothing waits for the device.
    """

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        return refusal("top_k_top_p", params, honours=("top_k", "top_p"))

    def prepare(self, params: Sequence[SamplingParams], out: Tensor | None = None) -> Tensor:
        """[4, R] float32: temperature (1 for greedy rows), 1 where noise is drawn, k, p; V and inf keep every token."""
        draws = [one.temperature >= MIN_TEMPERATURE for one in params]
        return columns(
            [
                [one.temperature if drawn else 1.0 for one, drawn in zip(params, draws, strict=True)],
                draws,
                [min(one.top_k or self.vocab_size, self.vocab_size) for one in params],
                [one.top_p if one.top_p < 1 else math.inf for one in params],
            ],
            self.device,
            out,
        )

    def sample(
        self, logits_RV: Tensor, prepared: Tensor, seed_R: Tensor, position_R: Tensor, history: TokenHistory
    ) -> Tensor:
        from framework.toolkit.samplers.noise import exponential_noise

        temperature_R1, weight_R1, k_R1, p_R1 = prepared.unsqueeze(-1)
        logits_RV /= temperature_R1
        ban_below_top_k(logits_RV, k_R1)
        ban_below_top_p(logits_RV, p_R1)
        noise_RV = exponential_noise(seed_R, position_R, self.vocab_size)
        return logits_RV.sub_(noise_RV.log_().mul_(weight_R1)).argmax(-1)  # the exponential race, in log space

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        return stated.masked_softmax(logits_V, params, stated.top_k(params.top_k), stated.top_p(params.top_p))
