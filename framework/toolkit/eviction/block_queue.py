"""A queue of cached blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

from framework.interfaces.eviction import CachedBlock


class BlockQueue:
    """Blocks by id, the next one to go first."""

    __slots__ = ("blocks", "num_members", "rank")

    def __init__(self, rank: int = 0) -> None:
        self.blocks: OrderedDict[int, CachedBlock] = OrderedDict()
        self.num_members = 0  # cached blocks that belong here; some may be out of `blocks`, see `QueuePolicy`
        self.rank = rank  # for the policy: which of its queues this is

    def first(self, evictable: Container[int]) -> CachedBlock | None:
        """The first block whose id is in `evictable`, or None. It stays in the queue; the blocks before it leave."""
        while self.blocks:
            block = next(iter(self.blocks.values()))
            if block.id in evictable:
                return block
            del self.blocks[block.id]
        return None
