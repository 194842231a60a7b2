"""Blocks that no objective needs go first: the end of each conversation, as far as it can be computed again in time."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS

_SPARE = 1e9
"""Seconds by which a block that can be spared counts as older: it goes before every other one."""


@EVICTIONS.register("tail_lru")
class TailLRU(ScorePolicy):
    """T-LRU: Zhang et al., "Tail-Optimized Caching for LLM Inference" (NeurIPS'25, arXiv 2510.15152). A prompt is in
    time if at most `threshold_blocks` of its blocks are computed. The next prompt of a conversation of L blocks has
    about L + `next_blocks`, so that all but its first L + `next_blocks` - `threshold_blocks` blocks can be spared.
    Spare blocks go first, then the least recently used ones.

    Differences: the paper evicts tokens of conversations, here a conversation is a chain of blocks, which branches
    where prompts part; a block belongs to the longest chain that went on after it. The paper's threshold follows from
    an objective in seconds, and it knows or predicts the length of the next turn; here both are parameters, in blocks.

    Args:
        threshold_blocks: blocks that can be computed within the objective of the time to first token.
        next_blocks: blocks that the next turn is expected to add.
    """

    def __init__(self, *, threshold_blocks: int = 64, next_blocks: int = 16) -> None:
        super().__init__()
        for name, value in (("threshold_blocks", threshold_blocks), ("next_blocks", next_blocks)):
            if value < 0:
                raise ValueError(f"eviction.{name}={value} must be at least 0")
        self.threshold_blocks, self.next_blocks = threshold_blocks, next_blocks
        self._ends: dict[int, int] = {}
        """By block id: the length of the chain that an evictable block ends."""
        self._inherited: dict[int, int] = {}
        """By block id: the length of the chain that went on after a block, before that was evicted."""

    def score(self, block: CachedBlock) -> float:
        length = self._ends[block.id] = max(self._inherited.pop(block.id, 0), block.depth + 1)
        needed = length + self.next_blocks - self.threshold_blocks
        return block.last_used_s - (_SPARE if block.depth >= needed else 0.0)

    def remove(self, block: CachedBlock) -> None:
        super().remove(block)
        del self._ends[block.id]

    def evict(self) -> CachedBlock:
        victim = super().evict()
        length, parent = self._ends.pop(victim.id), victim.parent
        if parent is not None:
            self._inherited[parent.id] = max(self._inherited.get(parent.id, 0), length)
        return victim
