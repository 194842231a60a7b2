"""No graphs."""

from __future__ import annotations

from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphStrategy
from framework.registry import GRAPHS


@GRAPHS.register("eager")
class Eager(GraphStrategy):
    """Captures nothing, so every step launches its kernels one by one. It starts at once and runs on any device."""

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        return []

    def select(self, shape: BatchShape) -> GraphKey | None:
        return None
