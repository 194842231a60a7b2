"""The block that entered the cache first leaves it first."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("fifo")
class FIFO(ScorePolicy):
    """First in, first out, by the order of publication; being used changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._inserted = 0
        self._order: dict[int, int] = {}  # by block id; overwritten when the block is published with other content

    def on_insert(self, block: CachedBlock) -> None:
        self._inserted += 1
        self._order[block.id] = self._inserted

    def score(self, block: CachedBlock) -> float:
        return self._order[block.id]
