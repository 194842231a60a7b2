"""The eviction policy: which cached KV block to drop when a step needs one and none is free."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class CachedBlock(Protocol):
    """What a policy may read of a block of the prefix cache. It may write nothing."""

    @property
    def id(self) -> int:
        """Physical block; reused for other content after eviction."""

    @property
    def hash(self) -> int | None:
        """Chained content hash; never None while a policy holds the block. The key for ghost lists."""

    @property
    def depth(self) -> int:
        """Position in its chain: 0 for the block that holds a prompt's first tokens."""

    @property
    def parent(self) -> CachedBlock | None:
        """The block before it in its chain; None for the first one."""

    @property
    def category(self) -> str:
        """That of the request which published it; empty when the workload has none."""

    @property
    def hits(self) -> int:
        """How often requests found the block in the cache."""

    @property
    def last_used_s(self) -> float:
        """When a request last took or released it, on the engine's clock."""


class EvictionPolicy(ABC):
    """Orders evictable blocks: cached, held by no request, and with no cached child (leaves go before their parents).

    The framework calls `add` when a block becomes evictable and `remove` when it is held again or gone; between the two
    the policy owns its ordering and nothing else. Decisions should be O(1) or O(log n).
    """

    @abstractmethod
    def add(self, block: CachedBlock) -> None:
        """`block` became evictable."""

    @abstractmethod
    def remove(self, block: CachedBlock) -> None:
        """`block`, added before, is held by a request again or has a cached child again."""

    @abstractmethod
    def evict(self) -> CachedBlock:
        """Choose a victim among the blocks added and not removed, and forget it. Called only when there is one."""

    def on_insert(self, block: CachedBlock) -> None:
        """`block` was published to the prefix cache under a new hash."""

    def on_hit(self, block: CachedBlock) -> None:
        """A request found `block` in the prefix cache and holds it now."""


@runtime_checkable
class NeedsFuture(Protocol):
    """A policy with these two methods learns all requests before the first one runs. Only the run of a workload can
    provide that."""

    def on_future(self, requests: Sequence[Sequence[int]]) -> None:
        """`requests[n]` are the content hashes that request n, counted by arrival, will look for in the cache."""

    def on_request(self, number: int) -> None:
        """Request `number` looks for its blocks now, so it is no longer in the future. Called before its `on_hit`
        calls, and again when it returns from a preemption."""


class ScorePolicy(EvictionPolicy):
    """Base class for policies that can give a block a score when it becomes evictable. The lowest score goes first.

    Ties go to the deeper block, then to the lower id, so that a decision depends on nothing else. A decision takes
    O(log n). A removed block stays in the heap until it surfaces.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, int]] = []
        self._tickets: dict[int, int] = {}
        """Block that is evictable -> the number of its last `add`. Entries of the heap with other numbers are stale."""
        self._blocks: dict[int, CachedBlock] = {}
        self._num_added = 0
        self._top_is_gone = False
        """Whether the top of the heap is the last victim, whose place the next `add` takes without a second sift."""

    @abstractmethod
    def score(self, block: CachedBlock) -> float:
        """How much `block` is worth keeping. Called once each time it becomes evictable."""

    def add(self, block: CachedBlock) -> None:
        ticket = self._num_added = self._num_added + 1
        number, heap, tickets = block.id, self._heap, self._tickets
        tickets[number], self._blocks[number] = ticket, block
        entry = (self.score(block), -block.depth, number, ticket)
        if self._top_is_gone:
            heapq.heapreplace(heap, entry)
            self._top_is_gone = False
        else:
            heapq.heappush(heap, entry)
        if len(heap) > 2 * len(tickets) + 64:  # mostly stale entries: rebuild, amortised O(1) per add
            self._heap = [entry for entry in heap if tickets.get(entry[2]) == entry[3]]
            heapq.heapify(self._heap)

    def remove(self, block: CachedBlock) -> None:
        del self._tickets[block.id]

    def evict(self) -> CachedBlock:
        heap, tickets = self._heap, self._tickets
        if self._top_is_gone:
            heapq.heappop(heap)
            self._top_is_gone = False
        while True:
            _, _, number, ticket = heap[0]
            if tickets.get(number) == ticket:
                self._top_is_gone = True
                del tickets[number]
                return self._blocks[number]
            heapq.heappop(heap)
