"""A block is worth what its tokens would cost to compute again, and its worth fades while no request asks for it."""

from __future__ import annotations

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("cost_aware")
class CostAware(ScorePolicy):
    """GreedyDual (Young, "The k-server dual and loose competitiveness for paging", Algorithmica 1994; as in Cao and
    Irani, "Cost-aware WWW proxy caching algorithms", USITS'97) over the cost of recomputing a block.

    A use sets a block's worth to L + cost; the lowest worth goes first and becomes L. Cost is in units of what a token
    costs in the linear layers, where attention adds a share that grows with the tokens before it: a token at position
    n costs about 2P + 4n(layers)(heads x head size) operations for P parameters.

    Args:
        linear_depth_blocks: depth where attention costs as much as the linear layers. With P = 12(layers)(width)^2 that
            is at 6(width) tokens: 384 blocks of 16 at a width of 1024, 1536 at 4096.
    """

    def __init__(self, *, linear_depth_blocks: float = 512.0) -> None:
        if not linear_depth_blocks > 0:
            raise ValueError(
                f"eviction.linear_depth_blocks={linear_depth_blocks} must be above 0; inf makes every cost the same"
            )
        super().__init__()
        self._linear_depth_blocks = linear_depth_blocks
        self._worth: dict[int, float] = {}  # by block id
        self._faded = 0.0  # the L of the papers

    def on_insert(self, block: CachedBlock) -> None:
        self._worth[block.id] = self._faded + 1.0 + block.depth / self._linear_depth_blocks

    on_hit = on_insert  # both are uses

    def score(self, block: CachedBlock) -> float:
        return self._worth[block.id]

    def evict(self) -> CachedBlock:
        block = super().evict()
        self._faded = max(self._faded, self._worth[block.id])
        return block
