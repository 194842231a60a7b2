"""The replica with the least to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.registry import ROUTERS


@ROUTERS.register("least_loaded")
class LeastLoaded(Router):
    """The replica with the fewest unfinished requests, or the fewest prompt tokens in them. Ties go to the replica that
    was sent the fewest."""

    def __init__(self, *, by: Literal["requests", "prompt_tokens"] = "requests") -> None:
        """
        Args:
            by: what counts as load: requests, or their prompt tokens.
        """
        self.by = by
        self._sent: Counter[int] = Counter()

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        by_requests = self.by == "requests"

        def load(replica: ReplicaView) -> tuple[int, int, int]:
            unfinished = replica.num_requests if by_requests else replica.num_prompt_tokens
            return unfinished, self._sent[replica.index], replica.index

        index = min(replicas, key=load).index
        self._sent[index] += 1
        return index
