"""Base for policies that keep every cached block in one of several queues (ARC, S3-FIFO, LFU, ...)."""

from __future__ import annotations

from collections import OrderedDict

from framework.interfaces.eviction import CachedBlock, EvictionPolicy


class BlockQueue:
    """Blocks by id, the next one to go first."""

    __slots__ = ("blocks", "num_members", "rank")

    def __init__(self, rank: int = 0) -> None:
        self.blocks: OrderedDict[int, CachedBlock] = OrderedDict()
        self.num_members = 0  # cached blocks that belong here; some may be out of `blocks`, see `QueuePolicy`
        self.rank = rank  # for the policy: which of its queues this is


class QueuePolicy(EvictionPolicy):
    """Textbook queues over blocks of which some cannot be evicted for a while, in amortised O(1).

    A block enters a queue when it is published and keeps its place while it is held or has children. If its turn comes
    then, it leaves the queue but still belongs to it, and `add` brings it back: as the newest if a request has just
    released it, else (its last child was just evicted) as the next to go. On a flat stream that never happens.
    """

    def __init__(self) -> None:
        self._queue_of: dict[int, BlockQueue] = {}  # by block id, for all cached blocks: as long as the cache is large
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

    def _put_back(self, block: CachedBlock) -> None:
        blocks = self._queue_of[block.id].blocks
        blocks[block.id] = block
        blocks.move_to_end(block.id, last=False)

    def _take_first(self, queue: BlockQueue) -> CachedBlock | None:
        """Take the first evictable block out of `queue`, to which it still belongs; None if there is none."""
        blocks, evictable = queue.blocks, self._evictable
        while blocks:
            block_id, block = blocks.popitem(last=False)
            if block_id in evictable:
                return block
        return None

    def _forget(self, block: CachedBlock) -> CachedBlock:
        """`block`, taken out of its queue, is the victim."""
        self._evictable.remove(block.id)
        self._queue_of.pop(block.id).num_members -= 1
        return block
