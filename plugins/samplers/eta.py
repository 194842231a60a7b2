"""Eta sampling: truncation at a probability that shrinks when the model is unsure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from plugins.samplers.refusals import refusal
from plugins.samplers.selection import Temperature, argmax_rows, gumbel_argmax

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@SAMPLERS.register("eta")
class Eta(Sampler):
    """Draws among the tokens of probability at least eta = min(epsilon, sqrt(epsilon) * exp(-entropy)): an absolute
    floor and one relative to the entropy (Hewitt et al., "Truncation Sampling as Language Model Desmoothing",
    arXiv 2210.15191, section 4). The most likely token always stays. The temperature comes first.

    Args:
        epsilon: the absolute floor, in (0, 1). The paper's values are .0003 to .004, by model size.

    Raises:
        ValueError: `epsilon` is outside (0, 1).
    """

    graph_safe = False  # a batch of greedy rows alone runs other operations than one that draws

    def __init__(self, vocab_size: int, device: torch.device, *, epsilon: float = 6e-4) -> None:
        super().__init__(vocab_size, device)
        if not 0 < epsilon < 1:
            raise ValueError(f"sampler.epsilon={epsilon} must be in (0, 1); try 0.0006, or sampler=gumbel for no floor")
        self.epsilon = epsilon

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        return refusal("eta", params)

    def prepare(self, params: Sequence[SamplingParams], out: object = None) -> Temperature | None:
        return Temperature.of(params, self.device)

    def sample(
        self,
        logits_RV: Tensor,
        prepared: Temperature | None,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
    ) -> Tensor:
        if prepared is None:
            return argmax_rows(logits_RV)
        logits_RV /= prepared.divisor_R1
        ban_below_eta(logits_RV, self.epsilon)
        return gumbel_argmax(logits_RV, seed_R, position_R, prepared.noise_weight_R1)


def ban_below_eta(logits_RV: Tensor, epsilon: float) -> None:
    """Set to -inf, in place, the tokens less likely than eta, except the most likely one of each row.

    Its probability is at least exp(-entropy), so only rounding could take it away. The entropy is summed in float64:
    the order of a float32 sum, and with it a token, may change with the batch.
    """
    import torch

    probs_RV = logits_RV.softmax(-1)
    entropy_R1 = torch.special.entr(probs_RV).sum(-1, keepdim=True, dtype=torch.float64)  # 0 for a banned token
    eta_R1 = (math.sqrt(epsilon) * (-entropy_R1).exp()).clamp(max=epsilon).float()
    logits_RV.masked_fill_(probs_RV < eta_R1.minimum(probs_RV.amax(-1, keepdim=True)), -math.inf)
