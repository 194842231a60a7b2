"""Graphs of whole decode steps, captured when they are first needed."""

from __future__ import annotations

from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.registry import GRAPHS
from framework.toolkit.graphs.buckets import decode_key, row_buckets


@GRAPHS.register("lazy")
class Lazy(GraphStrategy):
    """Like `full`, but captured at first use. The start is fast, and captures pause the run. Memory is bounded."""

    scope = GraphScope.STEP

    def __init__(self, *, sizes: list[int] | None = None, max_graphs: int = 16) -> None:
        """
        Args:
            sizes: the batch sizes, as for `bucketed`.
            max_graphs: how many graphs are kept at once; the one not replayed for the longest time makes room.
        """
        if max_graphs < 1:
            raise ValueError(f"graph.max_graphs={max_graphs} must be at least 1; or choose graph=eager")
        self._wanted, self.max_graphs = sizes, max_graphs
        self._sizes: list[int] = []

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        self._sizes = row_buckets(limits.max_num_seqs, self._wanted)
        return []

    def select(self, shape: BatchShape) -> GraphKey | None:
        return decode_key(shape, self._sizes)
