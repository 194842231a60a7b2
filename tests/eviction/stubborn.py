"""A policy that breaks the one rule about victims."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, EvictionPolicy


class Stubborn(EvictionPolicy):
    """Returns the first block that it ever saw, whether it is evictable or not."""

    def __init__(self) -> None:
        self.first: CachedBlock | None = None

    def add(self, block: CachedBlock) -> None:
        self.first = self.first or block

    def remove(self, block: CachedBlock) -> None:
        pass

    def evict(self) -> CachedBlock:
        assert self.first is not None
        return self.first
