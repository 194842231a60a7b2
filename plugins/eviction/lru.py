"""The block that was not used for the longest time goes first."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("lru")
class LRU(ScorePolicy):
    """Least recently used.

    The order is that of the last use and not that of `add`. A parent becomes evictable only when its last child is
    gone, which may be long after younger blocks were added. Of blocks that were last used at the same moment, such as
    those of one request, the deepest goes first, so that the shorter prefix stays useful.
    """

    def score(self, block: CachedBlock) -> float:
        return block.last_used_s
