"""Graphs of whole decode steps without any padding."""

from __future__ import annotations

from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.registry import GRAPHS


@GRAPHS.register("exact")
class Exact(GraphStrategy):
    """Like `full`, with one graph for every batch size that occurs, captured when it first occurs. There is no padding,
    at the price of the most captures. The difference to the other strategies is what padding costs."""

    scope = GraphScope.STEP

    def __init__(self, *, max_graphs: int = 64) -> None:
        """
        Args:
            max_graphs: how many graphs are kept at once; the one not replayed for the longest time makes room.
        """
        if max_graphs < 1:
            raise ValueError(f"graph.max_graphs={max_graphs} must be at least 1; or choose graph=eager")
        self.max_graphs = max_graphs
        self._max_num_seqs = 0

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        self._max_num_seqs = limits.max_num_seqs
        return []

    def select(self, shape: BatchShape) -> GraphKey | None:
        if not shape.decode_only or shape.num_rows > self._max_num_seqs:
            return None
        return GraphKey(shape.num_rows, shape.num_rows)
