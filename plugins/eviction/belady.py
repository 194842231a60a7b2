"""The block whose next use is farthest away goes first: the bound that no policy without foresight can beat."""

from __future__ import annotations

from collections.abc import Sequence

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("belady")
class Belady(ScorePolicy):
    """MIN (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 1966).

    Optimal on flat streams. On prefix chains it is a close guide and not a proven bound: a block is worth more than its
    own next use when its children need it.

    Needs the workload's future, which a simulation over known requests gives with `on_future` before the first one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._uses: dict[int | None, list[int]] | None = None  # content hash -> positions still to come, latest first

    def on_future(self, keys: Sequence[int]) -> None:
        """`keys` are the content hashes that will be asked for, in that order, as often as they will be."""
        self._uses = {}
        for position in range(len(keys) - 1, -1, -1):
            self._uses.setdefault(keys[position], []).append(position)

    def on_insert(self, block: CachedBlock) -> None:
        if self._uses is None:
            raise ValueError(
                "eviction=belady needs to know the future, and this run does not give it; replay the workload with "
                "framework.analysis.block_cache, or choose another policy, such as eviction=lru"
            )
        if uses := self._uses.get(block.hash):
            uses.pop()

    on_hit = on_insert  # both take one use off the list

    def score(self, block: CachedBlock) -> float:
        assert self._uses is not None
        uses = self._uses.get(block.hash)
        return -uses[-1] if uses else float("-inf")
