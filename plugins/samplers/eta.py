"""Eta sampling: truncation at a probability that shrinks when the model is unsure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from framework.registry import SAMPLERS
from framework.toolkit.samplers.truncation import TruncationSampler

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@SAMPLERS.register("eta")
class Eta(TruncationSampler):
    """Draws among the tokens of probability at least eta = min(epsilon, sqrt(epsilon) * exp(-entropy)): an absolute
    floor and one relative to the entropy (Hewitt et al., "Truncation Sampling as Language Model Desmoothing",
    arXiv 2210.15191). The most likely token always stays. The temperature comes first.

    Args:
        epsilon: the absolute floor, in (0, 1). The paper's values are .0003 to .004, by model size.

    Raises:
        ValueError: `epsilon` is outside (0, 1).
    """

    name = "eta"

    def __init__(self, vocab_size: int, device: torch.device, *, epsilon: float = 6e-4) -> None:
        super().__init__(vocab_size, device)
        if not 0 < epsilon < 1:
            raise ValueError(f"sampler.epsilon={epsilon} must be in (0, 1); try 0.0006, or sampler=gumbel for no floor")
        self.epsilon = epsilon

    def banned(self, logits_RV: Tensor) -> Tensor:
        """Tokens less likely than eta, but for the most likely one, which only rounding could take away.

        The entropy is summed in float64: the order of a float32 sum, and with it a token, may change with the batch.
        """
        import torch

        probs_RV = logits_RV.softmax(-1)
        entropy_R1 = torch.special.entr(probs_RV).sum(-1, keepdim=True, dtype=torch.float64)  # 0 for a banned token
        eta_R1 = (math.sqrt(self.epsilon) * (-entropy_R1).exp()).clamp(max=self.epsilon).float()
        return probs_RV < eta_R1.minimum(probs_RV.amax(-1, keepdim=True))

    def kept(self, probs_V: np.ndarray) -> np.ndarray:
        entropy = -sum(prob * math.log(prob) for prob in probs_V if prob)
        eta = min(self.epsilon, math.sqrt(self.epsilon) * math.exp(-entropy))
        return probs_V >= min(eta, probs_V.max())
