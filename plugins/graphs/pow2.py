"""Graphs of whole decode steps, for batch sizes that are powers of two."""

from __future__ import annotations

from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.registry import GRAPHS
from framework.toolkit.graphs.buckets import decode_key, row_buckets


@GRAPHS.register("pow2")
class Pow2(GraphStrategy):
    """Like `full` with the sizes 1, 2, 4, 8, 16, ...: few captures, little memory, up to half a batch of padding."""

    scope = GraphScope.STEP

    def __init__(self) -> None:
        self._sizes: list[int] = []

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        powers = [1 << exponent for exponent in range(limits.max_num_seqs.bit_length())]
        self._sizes = row_buckets(limits.max_num_seqs, powers)
        return [GraphKey(size, size) for size in reversed(self._sizes)]

    def select(self, shape: BatchShape) -> GraphKey | None:
        return decode_key(shape, self._sizes)
