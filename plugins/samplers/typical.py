"""Locally typical sampling: tokens whose surprise is close to what the model expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framework.registry import SAMPLERS
from framework.toolkit.samplers.stated import num_below
from framework.toolkit.samplers.truncation import TruncationSampler

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@SAMPLERS.register("typical")
class Typical(TruncationSampler):
    """Draws among the tokens whose surprise -log p is closest to the entropy: the smallest such set with at least the
    probability `mass`, and those as close as its last one (Meister et al., "Locally Typical Sampling", arXiv
    2202.00666). The temperature comes first.

    Args:
        mass: the probability to keep (the paper's tau), in (0, 1). The paper uses .2 for stories, .95 for summaries.

    Raises:
        ValueError: `mass` is outside (0, 1).
    """

    name = "typical"

    def __init__(self, vocab_size: int, device: torch.device, *, mass: float = 0.95) -> None:
        super().__init__(vocab_size, device)
        if not 0 < mass < 1:
            raise ValueError(f"sampler.mass={mass} must be in (0, 1); choose sampler=gumbel to keep every token")
        self.mass = mass

    def banned(self, logits_RV: Tensor) -> Tensor:
        """What is outside each row's typical set.

        Sums are in float64: the order of a float32 sum, and with it a token, may change with the batch.
        """
        import torch

        log_probs_RV = logits_RV.log_softmax(-1)
        probs_RV = log_probs_RV.exp()
        entropy_R1 = torch.special.entr(probs_RV).sum(-1, keepdim=True, dtype=torch.float64).float()
        distance_RV = (log_probs_RV + entropy_R1).abs_()
        sorted_RV, order_RV = distance_RV.sort(-1)
        total_RV = probs_RV.gather(1, order_RV).cumsum(-1, dtype=torch.float64)
        size_R1 = (total_RV < self.mass).sum(-1, keepdim=True)  # tokens before the one that reaches the mass
        return distance_RV > sorted_RV.gather(1, size_R1.clamp(max=logits_RV.shape[1] - 1))

    def kept(self, probs_V: np.ndarray) -> np.ndarray:
        import numpy as np

        with np.errstate(divide="ignore"):
            surprise_V = -np.log(probs_V)
        entropy = sum(prob * surprise for prob, surprise in zip(probs_V, surprise_V, strict=True) if prob)
        distance_V = abs(surprise_V - entropy)
        closest = sorted(range(len(probs_V)), key=distance_V.__getitem__)
        last = closest[num_below(self.mass, [probs_V[token] for token in closest])]
        return np.asarray(distance_V <= distance_V[last])
