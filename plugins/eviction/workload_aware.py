"""The block that is least likely to be asked for again soon goes first, judged by other blocks of its category."""

from __future__ import annotations

from collections import OrderedDict

from framework.interfaces.eviction import CachedBlock
from framework.registry import EVICTIONS
from framework.toolkit.eviction.queues import QueuePolicy
from framework.toolkit.eviction.reuse import Category


@EVICTIONS.register("workload_aware")
class WorkloadAware(QueuePolicy):
    """Reuse probability by category and age, then the deepest first (Wang et al., "KVCache Cache in the Wild:
    Characterizing and Optimizing KVCache Cache at a Large Cloud Provider", USENIX ATC'25, arXiv 2506.02634).

    The paper's category is a request's application and its turn in the conversation. Here it is the `category` of the
    request that published the block, and how often the block was asked for again, which stands for the turn. A
    workload without categories is one application. A decision rates one block per category, so use few categories.

    Args:
        num_turns: blocks that were asked for again `num_turns` - 1 times or more count as alike.
        ghost_ratio: evicted blocks whose return still counts as a reuse, as a multiple of the cached ones.
        window_blocks: uses of a category after which what it has seen so far counts half.
    """

    def __init__(self, *, num_turns: int = 4, ghost_ratio: float = 1.0, window_blocks: int = 10_000) -> None:
        if num_turns < 1 or not ghost_ratio >= 0 or window_blocks < 4:
            raise ValueError(
                f"eviction.num_turns={num_turns}, ghost_ratio={ghost_ratio}, window_blocks={window_blocks} must be at "
                f"least 1, 0 and 4; the defaults are 4, 1.0 and 10000"
            )
        super().__init__()
        self._num_turns, self._ghost_ratio, self._window_blocks = num_turns, ghost_ratio, window_blocks
        self._categories: dict[tuple[str, int], Category] = {}
        self._used: dict[int, tuple[Category, float]] = {}  # by block id: category and time of its last use
        self._ghosts: OrderedDict[int | None, tuple[Category, float]] = OrderedDict()  # the same by content hash
        self._life_s = 0.0  # running mean of the victims' age

    def on_insert(self, block: CachedBlock) -> None:
        self._use(block, max(self._latest_s, 0.0), self._ghosts.pop(block.hash, None))

    def on_hit(self, block: CachedBlock) -> None:
        self._use(block, block.last_used_s, self._used[block.id])

    def evict(self) -> CachedBlock:
        while len(self._ghosts) > self._ghost_ratio * len(self._queue_of):
            self._ghosts.popitem(last=False)
        firsts = (category.first(self._evictable) for category in self._categories.values())
        block = min((block for block in firsts if block is not None), key=self._priority)
        category, used_s = self._ghosts[block.hash] = self._used[block.id]
        self._life_s += (self._latest_s - used_s - self._life_s) / 100
        del category.blocks[block.id]
        return self._forget(block)

    def _priority(self, block: CachedBlock) -> tuple[float, int]:
        category, used_s = self._used[block.id]
        return category.reuse_probability(self._latest_s - used_s, self._life_s), -block.depth

    def _use(self, block: CachedBlock, now_s: float, before: tuple[Category, float] | None) -> None:
        turn = 0
        if before is not None:
            before[0].count_reuse(now_s - before[1])
            turn = min(before[0].rank + 1, self._num_turns - 1)
        category = self._categories.get((block.category, turn))
        if category is None:
            category = self._categories[block.category, turn] = Category(turn, self._window_blocks)
        category.count_use()
        self._used[block.id] = category, now_s
        self._enqueue(block, category)
