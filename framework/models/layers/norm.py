"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framework.models.layers.placement import Placement
from framework.models.layers.weight_slot import ShardId, WeightSource


class RMSNorm(nn.Module):
    """`x / rms(x) * weight` over the last dimension, accumulated in fp32.

    Equal to `transformers` bit for bit in fp32. In 16 bits it rounds once, after the weight, where `transformers`
    rounds before it as well.

    Args:
        offset: is added to the checkpoint's weight when it is loaded, in float32. Gemma's norms have 1. In 16 bits the
            sum is rounded, which `transformers` does not do.
    """

    def __init__(self, size: int, eps: float, *, place: Placement, offset: float = 0.0) -> None:
        super().__init__()
        self.size = (size,)
        self.eps = eps
        self.offset = offset
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
        self.weight.data.copy_(shifted(source[:], self.offset))


class QKNorm(nn.Module):
    """RMSNorm of every query and key head (Qwen3), both in one pass; shard ids "q", "k".

    Keeps a weight row per head, [N + M, H], so that one product serves queries and keys. `offset` is as in `RMSNorm`.
    """

    def __init__(
        self, num_heads: int, num_kv_heads: int, head_size: int, eps: float, *, place: Placement, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.offset = offset
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
        self.weight.data[rows] = shifted(source[:], self.offset).to(self.weight)  # one row for all heads


class WideQKNorm(nn.Module):
    """RMSNorm over all query heads together and over all key heads together (OLMo 2, arXiv 2501.00656, section 3.2).

    On several ranks the squares are summed over them, in one small all-reduce. A key head that several ranks hold
    counts once. Shard ids "q", "k".
    """

    def __init__(
        self, num_heads: int, num_kv_heads: int, head_size: int, eps: float, *, total: tuple[int, int], place: Placement
    ) -> None:
        """
        Args:
            num_heads, num_kv_heads: those of this rank.
            total: the query and the key heads of all ranks.
        """
        super().__init__()
        self.group, self.eps, self.offset = place.group, eps, 0.0
        self.head_size, self.num_heads = head_size, num_heads
        self._total = total
        self._copies = max(1, place.group.size // total[1])
        self.weight = place.empty(num_heads + num_kv_heads, head_size)

    def forward(self, qk_TNH: Tensor) -> Tensor:
        """[T, N + M, H] -> the same shape; queries first."""
        parts = (qk_TNH[:, : self.num_heads].float(), qk_TNH[:, self.num_heads :].float())
        sizes = [heads * self.head_size for heads in self._total]
        means = [part.square().sum((1, 2)) / size for part, size in zip(parts, sizes, strict=True)]
        means_T2 = torch.stack((means[0], means[1] / self._copies), dim=1)
        scale_T2 = torch.rsqrt(self.group.all_reduce(means_T2) + self.eps)
        normed = [part * scale_T2[:, index, None, None] for index, part in enumerate(parts)]
        return (torch.cat(normed, dim=1) * self.weight).to(qk_TNH.dtype)

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        return (self._total[shard_id == "k"] * self.head_size,)

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        is_key = shard_id == "k"
        rows = self.weight.data[self.num_heads :] if is_key else self.weight.data[: self.num_heads]
        start = (self.group.rank // self._copies if is_key else self.group.rank) * rows.numel()
        rows.copy_(source[start : start + rows.numel()].view(rows.shape))


def shifted(weight: Tensor, offset: float) -> Tensor:
    """`weight + offset`, rounded once."""
    return weight if offset == 0.0 else weight.float() + offset
