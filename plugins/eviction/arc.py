"""Recent and frequent blocks in two LRU lists, whose sizes follow the ghosts that are asked for again."""

from __future__ import annotations

from collections import OrderedDict

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from framework.toolkit.eviction.block_queue import BlockQueue
from framework.toolkit.eviction.queues import QueuePolicy


@EVICTIONS.register("arc")
class ARC(QueuePolicy):
    """Adaptive replacement cache (Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache", FAST'03),
    with its T1, T2 (cached), B1, B2 (ghosts) and p (the size that T1 aims at).

    An engine takes a block before it knows what will be published in it. A ghost that is asked for again therefore
    moves p from the next eviction on. In the paper it moves p for the eviction that the same request causes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._recent, self._frequent = BlockQueue(), BlockQueue()
        self._recent_ghosts: OrderedDict[int | None, None] = OrderedDict()  # content hashes
        self._frequent_ghosts: OrderedDict[int | None, None] = OrderedDict()
        self._target = 0.0

    def on_insert(self, block: CachedBlock) -> None:
        b1, b2 = self._recent_ghosts, self._frequent_ghosts
        if block.hash in b1:
            self._target = min(self._target + max(1.0, len(b2) / len(b1)), len(self._queue_of) + 1)
            del b1[block.hash]
            self._enqueue(block, self._frequent)
        elif block.hash in b2:
            self._target = max(self._target - max(1.0, len(b1) / len(b2)), 0.0)
            del b2[block.hash]
            self._enqueue(block, self._frequent)
        else:
            self._enqueue(block, self._recent)
        num_blocks = len(self._queue_of)
        while b1 and len(b1) + self._recent.num_members > num_blocks:
            b1.popitem(last=False)
        while b2 and len(b1) + len(b2) > num_blocks:
            b2.popitem(last=False)

    def on_hit(self, block: CachedBlock) -> None:
        self._enqueue(block, self._frequent)

    def evict(self) -> CachedBlock:
        recent, frequent = self._recent, self._frequent
        queue, other = (recent, frequent) if recent.num_members > self._target else (frequent, recent)
        block = self._evict_first(queue)
        if block is None:
            queue, block = other, self._evict_first(other)
        assert block is not None, "no block is evictable"
        ghosts = self._recent_ghosts if queue is recent else self._frequent_ghosts
        ghosts[block.hash] = None
        return block
