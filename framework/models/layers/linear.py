"""Linear layers split over tensor-parallel ranks, after Megatron-LM (arXiv 1909.08053, section 3).

A column-parallel layer holds a slice of the output features and a row-parallel one a slice of the input features, so a
pair of them needs one all-reduce. Layers that read the same input are merged into one matrix: one kernel, not two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from framework.models.layers.block_layer import LayerOfBlocks
from framework.models.layers.placement import Placement
from framework.models.layers.quantized import QuantizedRows
from framework.models.layers.weight_slot import ShardId, WeightSource


class LinearLayer(LayerOfBlocks):
    """`y = x W^T + b` with this rank's `weight` [out, in] and `bias` [out] or None.

    Attributes:
        kernel: computes `x [T, in] -> [T, out]` in place of the plain product when set, e.g. with weights packed for a
            CPU; set it after loading, for any layer of `DecoderLM.linear_layers()`, the LM head included.
    """

    bias: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Callable[[Tensor], Tensor] | None = None

    def apply_linear(self, x: Tensor) -> Tensor:
        """[T, in] -> [T, out], without communication."""
        if self.kernel is not None:
            return self.kernel(x)
        return F.linear(x, self.weight, self.bias)

    def finalize(self) -> None:
        """Called once when all weights are loaded."""

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        """See `LoadableLayer`."""
        raise NotImplementedError

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        """See `LoadableLayer`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Piece:
    """Which rows of a checkpoint tensor land where in this rank's merged parameter."""

    full_rows: int
    source_start: int
    num_rows: int
    target_start: int


MERGED = "merged"
"""The shard id of a checkpoint tensor that holds all pieces of a merged layer, one after the other."""


class _OutputSplitLinear(LinearLayer):
    """Output features split over the ranks, from one or more checkpoint tensors laid one after the other."""

    def __init__(self, in_features: int, pieces: dict[ShardId, _Piece], *, bias: bool, place: Placement) -> None:
        super().__init__()
        self.in_features = in_features
        self._pieces = pieces
        out_features = sum(piece.num_rows for piece in pieces.values())
        self.weight = place.empty(out_features, in_features)
        self.bias = place.empty(out_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[T, in] -> [T, out of this rank]."""
        return self.apply_linear(x)

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        pieces = self._pieces.values() if shard_id == MERGED else [self._pieces[shard_id]]
        rows = sum(piece.full_rows for piece in pieces)
        return (rows, self.in_features) if param_name == "weight" else (rows,)

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        before = 0  # rows of the pieces that come first in a merged tensor
        for piece in self._pieces.values() if shard_id == MERGED else [self._pieces[shard_id]]:
            target = getattr(self, param_name).data[piece.target_start : piece.target_start + piece.num_rows]
            start = before + piece.source_start
            target.copy_(source[start : start + piece.num_rows])
            before += piece.full_rows

    def share_of_blocks(self, source: QuantizedRows, shard_id: ShardId = None) -> QuantizedRows | None:
        return source.row_slice(self._pieces[shard_id].source_start, self._pieces[shard_id].num_rows)


class MergedColumnParallelLinear(_OutputSplitLinear):
    """Several column-parallel layers of the same input in one matrix, e.g. gate and up; shard ids are their indices."""

    def __init__(self, in_features: int, out_sizes: Sequence[int], *, bias: bool, place: Placement) -> None:
        pieces: dict[ShardId, _Piece] = {}
        target_start = 0
        for index, full_rows in enumerate(out_sizes):
            num_rows = place.group.share(full_rows, "output features")
            pieces[index] = _Piece(full_rows, place.group.rank * num_rows, num_rows, target_start)
            target_start += num_rows
        super().__init__(in_features, pieces, bias=bias, place=place)


class ColumnParallelLinear(_OutputSplitLinear):
    """One checkpoint tensor, output features split over the ranks."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, place: Placement) -> None:
        num_rows = place.group.share(out_features, "output features")
        piece = _Piece(out_features, place.group.rank * num_rows, num_rows, 0)
        super().__init__(in_features, {None: piece}, bias=bias, place=place)


class QKVParallelLinear(_OutputSplitLinear):
    """Query, key and value projections in one matrix, split by heads; shard ids "q", "k", "v".

    With fewer KV heads than ranks each KV head is held by several ranks, those whose query heads attend to it.

    Attributes:
        num_heads, num_kv_heads: those of this rank. The output is [T, (num_heads + 2 num_kv_heads) head_size].

    Raises:
        ValueError: if the heads can't be split evenly.
    """

    def __init__(
        self, in_features: int, head_size: int, num_heads: int, num_kv_heads: int, *, bias: bool, place: Placement
    ) -> None:
        group = place.group
        self_heads = group.share(num_heads, "attention heads")
        if num_kv_heads >= group.size:
            kv_heads = group.share(num_kv_heads, "KV heads")
            kv_start = group.rank * kv_heads
        else:
            if group.size % num_kv_heads:
                raise ValueError(
                    f"tp={group.size} ranks can't share {num_kv_heads} KV heads evenly; "
                    f"choose executor.tp as a divisor or a multiple of {num_kv_heads}"
                )
            kv_heads, kv_start = 1, group.rank // (group.size // num_kv_heads)
        q_rows, kv_rows, full_kv_rows = self_heads * head_size, kv_heads * head_size, num_kv_heads * head_size
        pieces: dict[ShardId, _Piece] = {
            "q": _Piece(num_heads * head_size, group.rank * q_rows, q_rows, 0),
            "k": _Piece(full_kv_rows, kv_start * head_size, kv_rows, q_rows),
            "v": _Piece(full_kv_rows, kv_start * head_size, kv_rows, q_rows + kv_rows),
        }
        super().__init__(in_features, pieces, bias=bias, place=place)
        self.num_heads, self.num_kv_heads = self_heads, kv_heads


class RowParallelLinear(LinearLayer):
    """Input features split over the ranks; the output is summed over them."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, place: Placement) -> None:
        super().__init__()
        self.group = place.group
        self._full_shape = (out_features, in_features)
        self._num_columns = place.group.share(in_features, "input features")
        self.weight = place.empty(out_features, self._num_columns)
        # One rank adds the bias, else the sum would hold it `size` times.
        self.bias = place.empty(out_features) if bias and place.group.rank == 0 else None

    def forward(self, x: Tensor) -> Tensor:
        """[T, in of this rank] -> [T, out], the same on every rank."""
        return self.group.all_reduce(self.apply_linear(x))

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        return self._full_shape if param_name == "weight" else self._full_shape[:1]

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        if param_name == "weight":
            start = self.group.rank * self._num_columns
            self.weight.data.copy_(source[:, start : start + self._num_columns])
        elif self.bias is not None:
            self.bias.data.copy_(source[:])

    def share_of_blocks(self, source: QuantizedRows, shard_id: ShardId = None) -> QuantizedRows | None:
        return source.column_slice(self.group.rank * self._num_columns, self._num_columns)
