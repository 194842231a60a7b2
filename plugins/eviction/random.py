"""Any block may go: the baseline that a policy has to beat."""

from __future__ import annotations

from random import Random

from framework.interfaces.eviction import CachedBlock, EvictionPolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("random")
class RandomEviction(EvictionPolicy):
    """Every evictable block is the victim with the same probability. O(1).

    Args:
        seed: runs with the same seed and the same calls choose the same victims.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._random = Random(seed)
        self._blocks: list[CachedBlock] = []
        self._index: dict[int, int] = {}  # block id -> place in `_blocks`

    def add(self, block: CachedBlock) -> None:
        self._index[block.id] = len(self._blocks)
        self._blocks.append(block)

    def remove(self, block: CachedBlock) -> None:
        self._take(self._index[block.id])

    def evict(self) -> CachedBlock:
        return self._take(int(self._random.random() * len(self._blocks)))

    def _take(self, index: int) -> CachedBlock:
        block, last = self._blocks[index], self._blocks.pop()
        if last is not block:  # the last one fills the gap
            self._blocks[index] = last
            self._index[last.id] = index
        del self._index[block.id]
        return block
