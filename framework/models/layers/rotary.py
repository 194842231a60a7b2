"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) from a table indexed by position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framework.models.layers.placement import Placement
from framework.models.layers.rope_config import RopeConfig
from framework.models.layers.rope_frequencies import attention_scaling, dynamic_ntk_frequencies, inverse_frequencies


class RotaryEmbedding(nn.Module):
    """Rotates the two halves of each head by angles that grow with the position.

    `cos_sin_PH` holds, for each position below `max_len`, H/2 cosines and then H/2 sines.

    Dynamic NTK changes the frequencies of a whole sequence as it outgrows the original length, which no KV cache can
    follow. Here a position past it uses the frequencies of the sequence that ends there: what `transformers` computes
    token by token with its cache, exactly; only prompts that exceed the original length already differ from it.
    """

    cos_sin_PH: Tensor

    def __init__(self, rope: RopeConfig, head_size: int, max_len: int, *, place: Placement) -> None:
        super().__init__()
        self.half_size = head_size // 2
        table_PH = cos_sin_table(rope, head_size, max_len).to(place.dtype)
        self.register_buffer("cos_sin_PH", table_PH.to(place.device), persistent=False)

    def angles(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin, [T, 1, H] each, once per step for all layers."""
        cos_sin = self.cos_sin_PH[positions_T].unsqueeze(1)
        cos, sin = cos_sin[..., : self.half_size], cos_sin[..., self.half_size :]
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)

    def rotate(self, qk_TNH: Tensor, cos_T1H: Tensor, signed_sin_T1H: Tensor) -> Tensor:
        """Queries and keys together, [T, N + M, H] -> the same shape, in three operations."""
        return (qk_TNH * cos_T1H).addcmul_(qk_TNH.roll(self.half_size, dims=-1), signed_sin_T1H)


class PartialRotaryEmbedding(nn.Module):
    """Rotates the first `rope.partial` of each head; the pairs are halves of that part, or neighbours in it."""

    cos_sin_PH: Tensor

    def __init__(self, rope: RopeConfig, head_size: int, max_len: int, *, place: Placement) -> None:
        super().__init__()
        self.size = int(head_size * rope.partial)
        if self.size < 2 or self.size % 2:
            raise ValueError(
                f"partial_rotary_factor={rope.partial} rotates {self.size} of the {head_size} values of a head, which "
                f"must be an even number of at least 2; correct the config"
            )
        self.interleaved = rope.interleaved
        table_PH = cos_sin_table(rope, self.size, max_len).to(place.dtype)
        self.register_buffer("cos_sin_PH", table_PH.to(place.device), persistent=False)

    def angles(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, [T, 1, size / 2] each, once per step for all layers."""
        cos, sin = self.cos_sin_PH[positions_T].unsqueeze(1).chunk(2, dim=-1)
        return cos, sin

    def rotate(self, qk_TNH: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
        """[T, N + M, H] -> the same shape."""
        part = qk_TNH[..., : self.size]
        first, second = (part[..., 0::2], part[..., 1::2]) if self.interleaved else part.chunk(2, dim=-1)
        turned = (first * cos_T1F - second * sin_T1F, second * cos_T1F + first * sin_T1F)
        joined = torch.stack(turned, dim=-1).flatten(-2) if self.interleaved else torch.cat(turned, dim=-1)
        return torch.cat((joined, qk_TNH[..., self.size :]), dim=-1)


def make_rotary(rope: RopeConfig, head_size: int, max_len: int, *, place: Placement) -> nn.Module:
    """The module for `rope`. Only that of whole heads in halves has fused kernels."""
    whole = rope.partial == 1.0 and not rope.interleaved
    return (RotaryEmbedding if whole else PartialRotaryEmbedding)(rope, head_size, max_len, place=place)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The rotation of one step's queries and keys, the same for all layers that have these positions."""

    rotary: nn.Module
    cos: Tensor
    sin: Tensor

    def __call__(self, qk_TNH: Tensor) -> Tensor:
        """Queries and keys together, [T, N + M, H] -> the same shape. The input may be overwritten."""
        turned: Tensor = self.rotary.rotate(qk_TNH, self.cos, self.sin)  # type: ignore[operator]
        return turned


def cos_sin_table(rope: RopeConfig, head_size: int, max_len: int) -> Tensor:
    """[max_len, H] float32 on the CPU."""
    positions_P = torch.arange(max_len, dtype=torch.float32, device="cpu")
    angles_PF = torch.outer(positions_P, inverse_frequencies(rope, head_size))
    if rope.rope_type == "dynamic" and max_len > (start := rope.original_max_position):
        lengths_P = torch.arange(start + 1, max_len + 1, device="cpu")
        angles_PF[start:] = positions_P[start:, None] * dynamic_ntk_frequencies(rope, head_size, lengths_P)
    scaling = attention_scaling(rope)
    return torch.cat((angles_PF.cos() * scaling, angles_PF.sin() * scaling), dim=-1)
