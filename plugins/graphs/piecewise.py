"""Graphs of everything but attention."""

from __future__ import annotations

from bisect import bisect_left

from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.registry import GRAPHS
from framework.toolkit.graphs.buckets import row_buckets

_FINE_TOKENS, _COARSE_STEP = 256, 128


@GRAPHS.register("piecewise")
class Piecewise(GraphStrategy):
    """Captures everything but attention, by number of tokens, so that prefill chunks and mixed batches replay too.

    It works with every attention backend. The sizes are those of `bucketed` up to 256 tokens, then every 128.
    """

    scope = GraphScope.PIECES

    def __init__(self, *, sizes: list[int] | None = None, max_tokens: int = 1024) -> None:
        """
        Args:
            sizes: numbers of tokens to capture instead.
            max_tokens: the largest size; larger steps run eager, where launches no longer matter.
        """
        if max_tokens < 1:
            raise ValueError(f"graph.max_tokens={max_tokens} must be at least 1; or choose graph=eager")
        self._wanted, self._max_tokens = sizes, max_tokens
        self._sizes: list[int] = []

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        largest = min(self._max_tokens, limits.max_num_batched_tokens)
        wanted = self._wanted
        if wanted is None:
            fine = row_buckets(min(largest, _FINE_TOKENS), None)
            wanted = [*fine, *range(_FINE_TOKENS + _COARSE_STEP, largest + 1, _COARSE_STEP)]
        self._sizes = row_buckets(largest, wanted)
        return [GraphKey(size, 0) for size in reversed(self._sizes)]

    def select(self, shape: BatchShape) -> GraphKey | None:
        index = bisect_left(self._sizes, shape.num_tokens)
        return GraphKey(self._sizes[index], 0) if index < len(self._sizes) else None
