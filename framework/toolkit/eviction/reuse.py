"""How likely a block of a category is to be used again, estimated from the blocks seen so far."""

from __future__ import annotations

from math import exp, expm1

from framework.toolkit.eviction.block_queue import BlockQueue


class Category(BlockQueue):
    """Blocks in order of their last use. A share of them will be used again, after an exponentially distributed time.
    Wang et al., "KVCache Cache in the Wild", arXiv 2506.02634, found this distribution within a category of requests.

    Args:
        rank: how often the blocks of this category were asked for again.
        window_blocks: after this many uses, what was seen so far counts half.
    """

    __slots__ = ("num_reused", "num_used", "reuse_s", "window_blocks")

    def __init__(self, rank: int, window_blocks: int) -> None:
        super().__init__(rank)
        self.window_blocks = window_blocks
        self.num_used = self.num_reused = self.reuse_s = 0.0

    def count_use(self) -> None:
        """A block came in, at its first use or a later one."""
        self.num_used += 1
        if self.num_used > self.window_blocks:
            self.num_used, self.num_reused, self.reuse_s = self.num_used / 2, self.num_reused / 2, self.reuse_s / 2

    def count_reuse(self, after_s: float) -> None:
        """One of its blocks was used again, `after_s` after it came in."""
        self.num_reused += 1
        self.reuse_s += after_s

    def reuse_probability(self, age_s: float, life_s: float) -> float:
        """The probability of a use within the next `life_s`, given that there was none in the last `age_s`.

        The estimate is smoothed as if two more blocks had been seen, one of them used again after `life_s`. An unknown
        category therefore starts with a fair chance.
        """
        share = (self.num_reused + 1) / max(self.num_used + 2, self.num_reused + 1)
        mean_s = (self.reuse_s + life_s) / (self.num_reused + 1)
        if mean_s == 0:
            return share
        still = share * exp(-age_s / mean_s)
        return still * -expm1(-life_s / mean_s) / (1 - share + still) if still else 0.0
