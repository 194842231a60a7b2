"""Thresholds found bit by bit, by counting or summing what lies above: exact, in a fixed number of passes, unsorted.

The radix selection of Alabi et al., "Fast k-selection algorithms for graphics processing units" (2012), one bit a pass,
on the bit patterns of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def ban_below_top_k(logits_RV: Tensor, k_R1: Tensor) -> None:
    """Set to -inf, in place, what is below each row's k-th largest logit."""
    import torch

    bits_RV = (logits_RV + 0.0).view(torch.int32)  # -0.0 becomes 0.0, which it equals
    bits_RV ^= (bits_RV >> 31) & 0x7FFFFFFF  # now ordered as the floats are
    least_R1 = torch.full_like(k_R1, -(1 << 31), dtype=torch.int64)
    last_R1 = _largest(least_R1, 32, lambda key_R1: (bits_RV >= key_R1).sum(-1, keepdim=True) >= k_R1)
    logits_RV.masked_fill_(bits_RV < last_R1, -math.inf)


def ban_below_top_p(logits_RV: Tensor, p_R1: Tensor) -> None:
    """Set to -inf, in place, what is less likely than the last token that each row's probability p needs."""
    import torch

    probs_RV = logits_RV.softmax(-1)
    bits_RV = probs_RV.view(torch.int32)  # not negative, so ordered as the floats are, and below 2^30

    def reaches_p(key_R1: Tensor) -> Tensor:
        kept_RV = probs_RV.where(bits_RV >= key_R1, 0.0)
        return kept_RV.sum(-1, keepdim=True, dtype=torch.float64) >= p_R1

    last_R1 = _largest(torch.zeros_like(p_R1, dtype=torch.int64), 30, reaches_p)
    logits_RV.masked_fill_(bits_RV < last_R1, -math.inf)


def _largest(least_R1: Tensor, num_bits: int, holds: Callable[[Tensor], Tensor]) -> Tensor:
    """The largest key in [least, least + 2^num_bits) for which `holds`, which is true up to it; else `least`. int32."""
    import torch

    for bit in reversed(range(num_bits)):
        key_R1 = least_R1 + (1 << bit)
        least_R1 = key_R1.where(holds(key_R1.int()), least_R1)
    return least_R1.to(torch.int32)
