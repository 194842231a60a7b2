"""A hand sweeps from old to new blocks, spares those visited since it came by, and drops the first other one."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from framework.toolkit.eviction.block_queue import BlockQueue
from framework.toolkit.eviction.queues import QueuePolicy


@EVICTIONS.register("sieve")
class SIEVE(QueuePolicy):
    """SIEVE (Zhang et al., "SIEVE is simpler than LRU", NSDI'24).

    Its one queue, with a hand somewhere inside, is kept as two: the blocks ahead of the hand up to the newest, and
    those that it has passed in this round. Nothing moves at a hit, and a spared block keeps its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ahead, self._passed = BlockQueue(), BlockQueue()
        self._visited: set[int] = set()

    def on_insert(self, block: CachedBlock) -> None:
        self._enqueue(block, self._ahead)

    def on_hit(self, block: CachedBlock) -> None:
        self._visited.add(block.id)

    def evict(self) -> CachedBlock:
        while True:
            block = self._take_first(self._ahead)
            if block is None:
                self._start_round()
            elif block.id in self._visited:
                self._visited.remove(block.id)
                self._enqueue(block, self._passed)
            else:
                self._forget(block)
                if not self._ahead.blocks:  # now, because a block published from here on comes behind all of these
                    self._start_round()
                return block

    def _start_round(self) -> None:
        self._ahead, self._passed = self._passed, self._ahead
