"""The block that is least likely to be asked for again soon goes first, by what others of its category did."""

from __future__ import annotations

from collections import OrderedDict

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from plugins.eviction.queues import QueuePolicy
from plugins.eviction.reuse import Category


@EVICTIONS.register("workload_aware")
class WorkloadAware(QueuePolicy):
    """Reuse probability by category and age, then the deepest first (Wang et al., "KVCache cache in the wild", USENIX
    ATC'25, arXiv 2506.02634, section 4).

    The paper's category is the request's application and turn. A block does not know its request, so here it is how
    often its content was asked for again: the turn as far as a block can tell, with all applications taken together.

    Args:
        num_categories: the last one holds all blocks that were asked for again at least `num_categories` - 1 times.
        ghost_ratio: evicted blocks whose return still counts as a reuse, as a multiple of the cached ones.
        window_blocks: uses of a category after which what it has seen so far counts half.
    """

    def __init__(self, *, num_categories: int = 4, ghost_ratio: float = 1.0, window_blocks: int = 10_000) -> None:
        if num_categories < 1 or not ghost_ratio >= 0 or window_blocks < 4:
            raise ValueError(
                f"eviction.num_categories={num_categories}, ghost_ratio={ghost_ratio}, window_blocks={window_blocks} "
                f"must be at least 1, 0 and 4; the defaults are 4, 1.0 and 10000"
            )
        super().__init__()
        self._ghost_ratio = ghost_ratio
        self._categories = [Category(rank, window_blocks) for rank in range(num_categories)]
        self._used_s: dict[int, float] = {}  # by block id
        self._ghosts: OrderedDict[int | None, tuple[Category, float]] = OrderedDict()  # content hash -> last use
        self._life_s = 0.0  # running mean of the victims' age

    def on_insert(self, block: CachedBlock) -> None:
        before = self._ghosts.pop(block.hash, None)
        self._use(block, max(self._latest_s, 0.0), before)

    def on_hit(self, block: CachedBlock) -> None:
        before = self._categories[self._queue_of[block.id].rank], self._used_s[block.id]
        self._use(block, block.last_used_s, before)

    def evict(self) -> CachedBlock:
        while len(self._ghosts) > self._ghost_ratio * len(self._queue_of):
            self._ghosts.popitem(last=False)
        firsts = [first for category in self._categories if (first := self._take_first(category)) is not None]
        block = min(firsts, key=self._priority)
        for other in firsts:
            if other is not block:
                self._put_back(other)
        category, used_s = self._categories[self._queue_of[block.id].rank], self._used_s[block.id]
        self._life_s += (self._latest_s - used_s - self._life_s) / 100
        self._ghosts[block.hash] = category, used_s
        return self._forget(block)

    def _priority(self, block: CachedBlock) -> tuple[float, int]:
        category, age_s = self._categories[self._queue_of[block.id].rank], self._latest_s - self._used_s[block.id]
        return category.reuse_probability(age_s, self._life_s), -block.depth

    def _use(self, block: CachedBlock, now_s: float, before: tuple[Category, float] | None) -> None:
        category = self._categories[0]
        if before is not None:
            before[0].count_reuse(now_s - before[1])
            category = self._categories[min(before[0].rank + 1, len(self._categories) - 1)]
        category.count_use()
        self._used_s[block.id] = now_s
        self._enqueue(block, category)
