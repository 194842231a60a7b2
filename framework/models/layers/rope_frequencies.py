"""Inverse frequencies of rotary position embeddings and their scalings to longer contexts.

`head_size` is the part of a head that is rotated. Every function returns [H / 2] float32 radians per position, equal to
`transformers`' bit for bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from framework.models.layers.rope_config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_size: int) -> Tensor:
    """[H / 2]; for dynamic NTK those of a sequence within the original length."""
    base = _unscaled(rope.rope_theta, head_size)
    if rope.rope_type == "linear":
        return base / rope.factor
    if rope.rope_type == "llama3":
        return _llama3(rope, base)
    if rope.rope_type == "yarn":
        return _yarn(rope, head_size)
    if rope.divisors is not None:
        return _divided(rope, head_size)
    return base


def attention_scaling(rope: RopeConfig) -> float:
    """The factor of cosine and sine: YaRN's temperature (arXiv 2309.00071, section 3.4), else 1."""
    if rope.rope_type not in ("yarn", "longrope"):
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.rope_type == "longrope":  # arXiv 2402.13753, section 3.3
        return 1.0 if rope.factor <= 1 else math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_position))

    def mscale(weight: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale(1.0)


def dynamic_ntk_frequencies(rope: RopeConfig, head_size: int, lengths_P: Tensor) -> Tensor:
    """[P, H / 2]: a row for each sequence length, all above the original one."""
    stretch_P = rope.factor * lengths_P.double() / rope.original_max_position - (rope.factor - 1)
    bases_P = rope.rope_theta * stretch_P ** (head_size / (head_size - 2))
    return 1.0 / (bases_P[:, None].float() ** _exponents(head_size))


def _exponents(head_size: int) -> Tensor:
    return torch.arange(0, head_size, 2, dtype=torch.int64, device="cpu").float() / head_size


def _unscaled(theta: float, head_size: int) -> Tensor:
    return 1.0 / (theta ** _exponents(head_size))


def _llama3(rope: RopeConfig, base: Tensor) -> Tensor:
    """Llama 3.1: long wavelengths are stretched, short ones kept, those between blended."""
    original = rope.original_max_position
    longest, shortest = original / rope.low_freq_factor, original / rope.high_freq_factor
    wavelength = 2 * math.pi / base
    scaled = torch.where(wavelength > longest, base / rope.factor, base)
    blend = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - blend) * scaled / rope.factor + blend * scaled
    return torch.where((wavelength >= shortest) & (wavelength <= longest), blended, scaled)


def _divided(rope: RopeConfig, head_size: int) -> Tensor:
    """LongRoPE (arXiv 2402.13753) with the list of divisors that runs."""
    divisors = torch.tensor(rope.divisors, dtype=torch.float32, device="cpu")
    if len(divisors) != head_size // 2:
        raise ValueError(
            f"a list of longrope's factors has {len(divisors)} numbers, but half of what is rotated of a head has "
            f"{head_size // 2}; correct the config"
        )
    return 1.0 / (divisors * rope.rope_theta ** _exponents(head_size))


def _yarn(rope: RopeConfig, head_size: int) -> Tensor:
    """YaRN, "NTK-by-parts" (arXiv 2309.00071, section 3.2): a ramp from kept to interpolated frequencies."""

    def dimension_of(num_rotations: float) -> float:
        ratio = rope.original_max_position / (num_rotations * 2 * math.pi)
        return head_size * math.log(ratio) / (2 * math.log(rope.rope_theta))

    low, high = dimension_of(rope.beta_fast), dimension_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_size - 1)
    if low == high:
        high += 0.001
    ramp = torch.clamp((torch.arange(head_size // 2, dtype=torch.float32, device="cpu") - low) / (high - low), 0, 1)
    powers = rope.rope_theta ** _exponents(head_size)
    keep = 1 - ramp
    return 1.0 / (rope.factor * powers) * (1 - keep) + 1.0 / powers * keep
