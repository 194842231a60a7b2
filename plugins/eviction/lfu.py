"""The block that was asked for least often goes first."""

from __future__ import annotations

from collections import OrderedDict

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from framework.toolkit.eviction.block_queue import BlockQueue
from framework.toolkit.eviction.queues import QueuePolicy


@EVICTIONS.register("lfu")
class LFU(QueuePolicy):
    """Least frequently used; of equally frequent blocks, the one that has been so for the longest time.

    It has one queue per frequency, as in Shah, Mitra and Matani, "An O(1) algorithm for implementing the LFU cache
    eviction scheme" (2010).

    Args:
        ghost_ratio: how many evicted blocks keep their count for the next time, as a multiple of the cached ones; 0 is
            LFU in its usual sense ("in-cache"), where a block that returns starts again at 1.
    """

    def __init__(self, *, ghost_ratio: float = 0.0) -> None:
        if not ghost_ratio >= 0:
            raise ValueError(f"eviction.ghost_ratio={ghost_ratio} must be at least 0; 0 remembers nothing")
        super().__init__()
        self._ghost_ratio = ghost_ratio
        self._ghosts: OrderedDict[int | None, int] = OrderedDict()  # content hash -> frequency
        self._queues: dict[int, BlockQueue] = {}
        self._lowest = 1  # no queue below this frequency has blocks to offer

    def on_insert(self, block: CachedBlock) -> None:
        self._place(block, self._ghosts.pop(block.hash, 0) + 1 if self._ghosts else 1)

    def on_hit(self, block: CachedBlock) -> None:
        old = self._queue_of[block.id]
        self._place(block, old.rank + 1)
        if not old.num_members:
            del self._queues[old.rank]

    def add(self, block: CachedBlock) -> None:
        super().add(block)
        frequency = self._queue_of[block.id].rank
        if frequency < self._lowest:
            self._lowest = frequency

    def evict(self) -> CachedBlock:
        while (queue := self._queues.get(self._lowest)) is None or (block := self._evict_first(queue)) is None:
            self._lowest = min(frequency for frequency in self._queues if frequency > self._lowest)
        if not queue.num_members:
            del self._queues[queue.rank]
        if self._ghost_ratio:
            while len(self._ghosts) > self._ghost_ratio * len(self._queue_of):
                self._ghosts.popitem(last=False)
            self._ghosts[block.hash] = queue.rank
        return block

    def _place(self, block: CachedBlock, frequency: int) -> None:
        queue = self._queues.get(frequency)
        if queue is None:
            queue = self._queues[frequency] = BlockQueue(frequency)
        self._enqueue(block, queue)
