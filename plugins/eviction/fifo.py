"""The block that entered the cache first leaves it first."""

from __future__ import annotations

import heapq

from framework.interfaces.eviction import CachedBlock, EvictionPolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("fifo")
class FIFO(EvictionPolicy):
    """First in, first out, in the order of publication. Using a block changes nothing.

    It uses a heap and not a queue, because parents are published before their children and become evictable after
    them. A block that cannot be evicted when its turn comes leaves the heap until `add`. An eviction takes O(log n),
    and a hit O(1).
    """

    def __init__(self) -> None:
        self._num_inserted = 0
        self._order: dict[int, int] = {}  # by block id; overwritten when the block is published with other content
        self._heap: list[tuple[int, int]] = []
        self._passed_over: set[int] = set()
        self._evictable: dict[int, CachedBlock] = {}

    def on_insert(self, block: CachedBlock) -> None:
        self._num_inserted += 1
        self._order[block.id] = self._num_inserted
        heapq.heappush(self._heap, (self._num_inserted, block.id))

    def add(self, block: CachedBlock) -> None:
        self._evictable[block.id] = block
        if block.id in self._passed_over:
            self._passed_over.remove(block.id)
            heapq.heappush(self._heap, (self._order[block.id], block.id))

    def remove(self, block: CachedBlock) -> None:
        del self._evictable[block.id]

    def evict(self) -> CachedBlock:
        while True:
            _, block_id = heapq.heappop(self._heap)
            block = self._evictable.pop(block_id, None)
            if block is not None:
                return block
            self._passed_over.add(block_id)
