"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from framework.models.layers.placement import Placement
from framework.models.layers.weight_slot import ShardId, WeightSource


class RMSNorm(nn.Module):
    """`x / rms(x) * weight` over the last dimension, accumulated in fp32.

    Equal to `transformers` bit for bit in fp32. In 16 bits it rounds once, after the weight, where `transformers`
    rounds before it as well.
    """

    def __init__(self, size: int, eps: float, *, place: Placement) -> None:
        super().__init__()
        self.size = (size,)
        self.eps = eps
        self.weight = place.empty(size)

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] -> [T, D]."""
        return F.rms_norm(x_TD, self.size, self.weight, self.eps)

    def add_and_norm(self, x_TD: Tensor, residual_TD: Tensor) -> Tensor:
        """Add `x` to the residual stream in place, and return the stream normalised."""
        return F.rms_norm(residual_TD.add_(x_TD), self.size, self.weight, self.eps)

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        return self.size

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        self.weight.data.copy_(source[:])


class QKNorm(nn.Module):
    """RMSNorm of every query and key head (Qwen3), both in one pass; shard ids "q", "k".

    Keeps a weight row per head, [N + M, H], so that one product serves queries and keys.
    """

    def __init__(self, num_heads: int, num_kv_heads: int, head_size: int, eps: float, *, place: Placement) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.size = (head_size,)
        self.eps = eps
        self.weight = place.empty(num_heads + num_kv_heads, head_size)

    def forward(self, qk_TNH: Tensor) -> Tensor:
        """[T, N + M, H] -> the same shape; queries first."""
        return F.rms_norm(qk_TNH, self.size, None, self.eps).mul_(self.weight)

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        return self.size

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        rows = slice(0, self.num_heads) if shard_id == "q" else slice(self.num_heads, None)
        self.weight.data[rows] = source[:].to(self.weight)  # one row for all heads
