"""Base class for policies that keep every cached block in one of several queues (ARC, S3-FIFO, LFU, ...)."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, EvictionPolicy
from framework.toolkit.eviction.block_queue import BlockQueue


class QueuePolicy(EvictionPolicy):
    """Textbook queues over blocks of which some cannot be evicted for a while, in amortised O(1).

    A block enters a queue when it is published and keeps its place while it is held or has children. If its turn comes
    during that time, it leaves the queue but still belongs to it. `add` brings it back: as the newest if a request has
    just released it, or as the next to go if its last child was just evicted. On a flat stream that never happens.
    """

    def __init__(self) -> None:
        self._queue_of: dict[int, BlockQueue] = {}  # by block id, for all cached blocks
        self._evictable: set[int] = set()
        self._latest_s = float("-inf")

    def add(self, block: CachedBlock) -> None:
        block_id, used_s = block.id, block.last_used_s
        self._evictable.add(block_id)
        if used_s > self._latest_s:
            self._latest_s = used_s
        blocks = self._queue_of[block_id].blocks
        if block_id not in blocks:
            blocks[block_id] = block
            if used_s < self._latest_s:
                blocks.move_to_end(block_id, last=False)

    def remove(self, block: CachedBlock) -> None:
        self._evictable.remove(block.id)

    def _enqueue(self, block: CachedBlock, queue: BlockQueue) -> None:
        """Make `block` the newest of `queue`, from wherever it was."""
        block_id = block.id
        old = self._queue_of.get(block_id)
        if old is not None:
            old.blocks.pop(block_id, None)
        if old is not queue:
            if old is not None:
                old.num_members -= 1
            self._queue_of[block_id] = queue
            queue.num_members += 1
        queue.blocks[block_id] = block

    def _take_first(self, queue: BlockQueue) -> CachedBlock | None:
        """Take the first evictable block out of `queue`, to which it still belongs; None if there is none."""
        blocks, evictable = queue.blocks, self._evictable
        while blocks:
            block_id, block = blocks.popitem(last=False)
            if block_id in evictable:
                return block
        return None

    def _evict_first(self, queue: BlockQueue) -> CachedBlock | None:
        """The first evictable block of `queue`, as the victim; None if there is none."""
        blocks, evictable = queue.blocks, self._evictable
        while blocks:
            block_id, block = blocks.popitem(last=False)
            if block_id in evictable:  # `_take_first` and `_forget` in one, since every decision pays for it
                evictable.remove(block_id)
                del self._queue_of[block_id]
                queue.num_members -= 1
                return block
        return None

    def _forget(self, block: CachedBlock) -> CachedBlock:
        """`block`, taken out of its queue, is the victim."""
        self._evictable.remove(block.id)
        self._queue_of.pop(block.id).num_members -= 1
        return block
