"""New blocks pass through a FIFO queue. A block that is asked for again after it has left enters an LRU queue."""

from __future__ import annotations

from collections import OrderedDict

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from framework.toolkit.eviction.block_queue import BlockQueue
from framework.toolkit.eviction.queues import QueuePolicy


@EVICTIONS.register("two_queue")
class TwoQueue(QueuePolicy):
    """2Q (Johnson and Shasha, VLDB'94), the full version with a queue of ghosts.

    Args:
        in_ratio: share of the cached blocks that the FIFO of new ones (A1in) may keep, the paper's Kin.
        out_ratio: blocks remembered after they left the FIFO (A1out), as a multiple of the cached ones, Kout.
    """

    def __init__(self, *, in_ratio: float = 0.25, out_ratio: float = 0.5) -> None:
        if not 0 < in_ratio < 1:
            raise ValueError(f"eviction.in_ratio={in_ratio} must be in (0, 1); the paper takes 0.25")
        if not out_ratio >= 0:
            raise ValueError(f"eviction.out_ratio={out_ratio} must be at least 0; the paper takes 0.5")
        super().__init__()
        self._in_ratio, self._out_ratio = in_ratio, out_ratio
        self._new, self._main = BlockQueue(), BlockQueue()
        self._ghosts: OrderedDict[int | None, bool] = OrderedDict()  # content hashes

    def on_insert(self, block: CachedBlock) -> None:
        self._enqueue(block, self._main if self._ghosts.pop(block.hash, False) else self._new)

    def on_hit(self, block: CachedBlock) -> None:
        if self._queue_of[block.id] is self._main:
            self._enqueue(block, self._main)

    def evict(self) -> CachedBlock:
        new, main, num_blocks = self._new, self._main, len(self._queue_of)
        # Before the victim's hash joins: it must not push out the one that the next block may bring.
        while len(self._ghosts) > self._out_ratio * num_blocks:
            self._ghosts.popitem(last=False)
        queue, other = (new, main) if new.num_members > self._in_ratio * num_blocks else (main, new)
        block = self._evict_first(queue)
        if block is None:
            queue, block = other, self._evict_first(other)
        assert block is not None, "no block is evictable"
        if queue is new:
            self._ghosts[block.hash] = True
        return block
