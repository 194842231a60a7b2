"""Segments of LRU: a hit promotes a block to the next one, and only the lowest one loses blocks."""

from __future__ import annotations

from typing import Literal

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from framework.toolkit.eviction.block_queue import BlockQueue
from framework.toolkit.eviction.queues import QueuePolicy


@EVICTIONS.register("slru")
class SLRU(QueuePolicy):
    """Segmented LRU (Karedla, Love and Wherry, "Caching strategies to improve disk system performance", 1994).

    A segment that grows over its share, which is the same for all, sends its oldest block down to the one below.

    Args:
        num_segments: 2 are the probationary and the protected segment of the paper.
        fill: where blocks go before the first eviction: all into the lowest segment, as in the paper, or spread over
            all segments by age and hits, as in the simulator libCacheSim. The upper segments are slow to lose them.
    """

    def __init__(self, *, num_segments: int = 2, fill: Literal["lowest", "spread"] = "lowest") -> None:
        if num_segments < 2:
            raise ValueError(f"eviction.num_segments={num_segments} must be at least 2; one segment is eviction=lru")
        super().__init__()
        self._spread_pending = fill == "spread"
        self._segments = [BlockQueue(rank) for rank in range(num_segments)]
        self._top = num_segments - 1

    def on_insert(self, block: CachedBlock) -> None:
        self._enqueue(block, self._segments[0])

    def on_hit(self, block: CachedBlock) -> None:
        rank = 0 if self._spread_pending else min(self._queue_of[block.id].rank + 1, self._top)
        self._enqueue(block, self._segments[rank])
        self._demote(rank)

    def evict(self) -> CachedBlock:
        if self._spread_pending:
            self._spread()
        for segment in self._segments:
            block = self._evict_first(segment)
            if block is not None:
                return block
        raise AssertionError("no block is evictable")

    def _demote(self, highest: int) -> None:
        """Bring the segments from `highest` down to their share."""
        share = len(self._queue_of) // len(self._segments)
        for rank in range(highest, 0, -1):
            segment = self._segments[rank]
            while segment.num_members > share and segment.blocks:
                self._enqueue(next(iter(segment.blocks.values())), self._segments[rank - 1])

    def _spread(self) -> None:
        self._spread_pending = False
        share = len(self._queue_of) // len(self._segments) or 1
        age_rank = {block_id: index // share for index, block_id in enumerate(self._queue_of)}  # as published
        for block in list(self._segments[0].blocks.values()):
            self._enqueue(block, self._segments[min(age_rank[block.id] + block.hits, self._top)])
        self._demote(self._top)
