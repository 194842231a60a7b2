"""Rarely used blocks go first, and among them those that lie late in their request."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("length_aware")
class LengthAware(ScorePolicy):
    """LengthAwareCache of Mooncake (Qin et al., arXiv 2407.00079).

    The report defines it in one sentence: like LFU, with regard to how late in its request a block occurs. Read here
    as: the lowest number of hits goes first; of equally many, the deepest block, which the fewest prompts can share.
    """

    def score(self, block: CachedBlock) -> float:
        return block.hits  # of equal scores, `ScorePolicy` takes the deepest
