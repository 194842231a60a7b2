"""The block whose next use is farthest away goes first: the bound that no policy without foresight can beat."""

from __future__ import annotations

from collections.abc import Sequence

from framework.interfaces.eviction import CachedBlock, ScorePolicy
from framework.registry import EVICTIONS


@EVICTIONS.register("belady")
class Belady(ScorePolicy):
    """MIN (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 1966).

    Optimal on flat streams. On prefix chains it is a close guide and not a proven bound: a block is worth more than its
    own next use when its children need it. The future is the list of requests in order of arrival; where a scheduler
    admits them in another order, or preempts, that order still stands for time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._uses: dict[int | None, list[int]] | None = None  # content hash -> requests that ask for it, latest first
        self._begun = bytearray()

    def on_future(self, requests: Sequence[Sequence[int]]) -> None:
        self._uses, self._begun = {}, bytearray(len(requests))
        for number in range(len(requests) - 1, -1, -1):
            for key in requests[number]:
                self._uses.setdefault(key, []).append(number)

    def on_request(self, number: int) -> None:
        if self._uses is None:
            raise ValueError(
                "eviction=belady needs to know all requests before the first one, and here they come one by one; "
                "choose another policy, such as eviction=lru, or run a workload"
            )
        self._begun[number] = True

    def score(self, block: CachedBlock) -> float:
        assert self._uses is not None
        uses = self._uses.get(block.hash)
        while uses and self._begun[uses[-1]]:
            uses.pop()
        return -uses[-1] if uses else float("-inf")
