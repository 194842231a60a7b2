"""Graphs of the forward pass for a list of batch sizes."""

from __future__ import annotations

from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphStrategy
from framework.registry import GRAPHS
from framework.toolkit.graphs.buckets import decode_key, row_buckets


@GRAPHS.register("bucketed")
class Bucketed(GraphStrategy):
    """The forward pass of decode batches, captured at start for 1, 2, 4, 8 and every 16 rows up to `max_num_seqs`.

    A batch replays in the smallest bucket that holds it. The sizes are nano-vLLM's.
    """

    def __init__(self, *, sizes: list[int] | None = None) -> None:
        """
        Args:
            sizes: batch sizes to capture instead; `max_num_seqs` is always added.
        """
        self._wanted = sizes
        self._sizes: list[int] = []

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        self._sizes = row_buckets(limits.max_num_seqs, self._wanted)
        return [GraphKey(size, size) for size in reversed(self._sizes)]

    def select(self, shape: BatchShape) -> GraphKey | None:
        return decode_key(shape, self._sizes)
