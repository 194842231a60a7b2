"""Replicas in turn, as a load balancer does that knows nothing about them."""

from __future__ import annotations

from collections.abc import Sequence

from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.registry import ROUTERS


@ROUTERS.register("round_robin")
class RoundRobin(Router):
    """Sends each request to the replica after that of the last request."""

    def __init__(self) -> None:
        self._next = 0

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        index = self._next % len(replicas)
        self._next = index + 1
        return index
