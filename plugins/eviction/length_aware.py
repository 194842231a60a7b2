"""Rarely used blocks go first, and among them those that lie late in their request."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("length_aware")
class LengthAware(ScorePolicy):
    """LengthAwareCache of Mooncake (Qin et al., arXiv 2407.00079).

    The report defines it in one sentence: like LFU, with regard to how late in its request a block occurs. Here that
    means that the block with the fewest hits goes first. Of equals the deepest goes first, because the fewest prompts
    can share it.
    """

    def score(self, block: CachedBlock) -> float:
        return block.hits  # of equal scores, `ScorePolicy` takes the deepest
