"""Counter-based noise: a variate is a hash of (seed, position, token id), never the state of a generator.

A request's tokens therefore do not depend on its batch, on the step that computes them or on the device. The idea
is that of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the per-row key uses the 64-bit
finaliser of SplitMix64 (Steele et al., OOPSLA 2014, with Stafford's "Mix13" constants), the per-token hash the 32-bit
constants that C. Wellons found by search ("lowbias32", 2018).

Everything is plain PyTorch on integers that wrap around, without host synchronisation or data-dependent shapes: it can
be compiled and captured in a graph. PyTorch shifts signed integers arithmetically, hence the masks after the shifts.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN_64 = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX13_A = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX13_B = 0x94D049BB133111EB - (1 << 64)
_LOWBIAS_A = 0x7FEB352D
_LOWBIAS_B = 0x846CA68B - (1 << 32)

# 31 uniform bits y become v = -(y + 0.5) * 2^-31, shrunk by one part in 2^24 so that the largest y, which float32
# rounds up to 2^31, gives -(1 - 2^-24) and not -1.
_SCALE = -(1 - 2.0**-24) * 2.0**-31
_OFFSET = -(2.0**-32)


def exponential_noise(seed_R: Tensor, position_R: Tensor, vocab_size: int, first_token: int = 0) -> Tensor:
    """Exp(1) variates for every token of the vocabulary, a function of (seed, position, token id) alone.

    Args:
        seed_R: [R] int64, any values.
        position_R: [R] int64, the position that the sampled token will have.
        vocab_size: V, below 2^31.
        first_token: the id that the first column is for, where the vocabulary is split over ranks.

    Returns:
        [R, V] float32 in [2^-32, 16.7]. Small variates, which decide `argmax(p / noise)`, are resolved in steps of
        2^-31; the bits are equal on all devices and the logarithm within its rounding there.
    """
    key_R1 = _mix_64(_mix_64(seed_R + _GOLDEN_64) + position_R * _GOLDEN_64).unsqueeze(1)
    # Shifting left and back sign-extends the low half, so that the narrowing never leaves the range of int32.
    low_R1 = ((key_R1 << 32) >> 32).to(torch.int32)
    high_R1 = (key_R1 >> 32).to(torch.int32) | 1  # odd: multiplying by it loses nothing
    x_RV = _hash_tokens(first_token, vocab_size, seed_R.device) ^ low_R1
    x_RV *= high_R1
    y_RV = x_RV >> 16
    x_RV ^= y_RV.bitwise_and_(0xFFFF)
    x_RV *= _LOWBIAS_B
    x_RV ^= torch.bitwise_right_shift(x_RV, 15, out=y_RV)  # unmasked, this clears the sign too: 31 uniform bits remain
    # The scratch memory becomes the result: a step's noise is megabytes, and fresh pages cost more than the arithmetic.
    return _to_exponential(y_RV.view(torch.float32).copy_(x_RV))


def _to_exponential(bits: Tensor) -> Tensor:
    """Exp(1) variates from integers in [0, 2^31), held in float32 and overwritten."""
    return bits.mul_(_SCALE).add_(_OFFSET).log1p_().neg_()


def _mix_64(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 30) & 0x3_FFFF_FFFF)) * _MIX13_A
    x = (x ^ ((x >> 27) & 0x1F_FFFF_FFFF)) * _MIX13_B
    return x ^ ((x >> 31) & 0x1_FFFF_FFFF)


def _hash_tokens(first_token: int, vocab_size: int, device: torch.device) -> Tensor:
    first = first_token + 1  # the hash of 0 is 0
    x_V = torch.arange(first, first + vocab_size, dtype=torch.int32, device=device)
    x_V = (x_V ^ (x_V >> 16)) * _LOWBIAS_A  # not negative yet: no mask
    x_V = (x_V ^ ((x_V >> 15) & 0x1FFFF)) * _LOWBIAS_B
    return x_V ^ ((x_V >> 16) & 0xFFFF)
