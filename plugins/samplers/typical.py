"""Locally typical sampling: tokens whose surprise is close to what the model expects."""

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


@SAMPLERS.register("typical")
class Typical(Sampler):
    """Draws among the tokens whose surprise -log p is closest to the entropy: the smallest such set with at least the
    probability `mass`, and those as close as its last one (Meister et al., "Locally Typical Sampling", arXiv
    2202.00666, section 4). The temperature comes first.

    Args:
        mass: the probability to keep (the paper's tau), in (0, 1). The paper uses .2 for stories, .95 for summaries.

    Raises:
        ValueError: `mass` is outside (0, 1).
    """

    graph_safe = False  # a batch of greedy rows alone runs other operations than one that draws

    def __init__(self, vocab_size: int, device: torch.device, *, mass: float = 0.95) -> None:
        super().__init__(vocab_size, device)
        if not 0 < mass < 1:
            raise ValueError(f"sampler.mass={mass} must be in (0, 1); choose sampler=gumbel to keep every token")
        self.mass = mass

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        return refusal("typical", params)

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
        banned_RV = atypical(logits_RV, self.mass)
        if prepared.noise_weight_R1 is not None:  # a greedy row's token, the most likely one, need not be typical
            banned_RV &= prepared.noise_weight_R1 > 0
        logits_RV.masked_fill_(banned_RV, -math.inf)
        return gumbel_argmax(logits_RV, seed_R, position_R, prepared.noise_weight_R1)


def atypical(logits_RV: Tensor, mass: float) -> Tensor:
    """[R, V] bool: what is outside each row's typical set.

    Sums are in float64: the order of a float32 sum, and with it a token, may change with the batch.
    """
    import torch

    log_probs_RV = logits_RV.log_softmax(-1)
    probs_RV = log_probs_RV.exp()
    entropy_R1 = torch.special.entr(probs_RV).sum(-1, keepdim=True, dtype=torch.float64).float()
    distance_RV = (log_probs_RV + entropy_R1).abs_()
    sorted_RV, order_RV = distance_RV.sort(-1)
    total_RV = probs_RV.gather(1, order_RV).cumsum(-1, dtype=torch.float64)
    size_R1 = (total_RV < mass).sum(-1, keepdim=True)  # tokens before the one that reaches the mass
    return distance_RV > sorted_RV.gather(1, size_R1.clamp(max=logits_RV.shape[1] - 1))
