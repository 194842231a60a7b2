"""The router: which replica of a fleet serves a request. It decides at arrival, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from framework.interfaces.scheduler import RequestView


class ReplicaView(Protocol):
    """What a router may know of a replica: what was sent there, and what has come back by the time of the arrival."""

    @property
    def index(self) -> int:
        """The place of the replica among all replicas, from 0."""

    @property
    def num_requests(self) -> int:
        """How many requests were sent to the replica and have not finished."""

    @property
    def num_prompt_tokens(self) -> int:
        """How many prompt tokens these requests have."""

    @property
    def num_blocks(self) -> int:
        """The size of the replica's KV cache, in blocks."""


class Router(ABC):
    """Base of all routers. One object serves one run, and the same arrivals get the same choices in each.

    It is a fault if one replica gets nothing while all others have more than they can serve. Apart from that a router
    is free to choose.

    Plugins register with `@ROUTERS.register("name")` and take keyword-only, annotated parameters.
    """

    @abstractmethod
    def route(self, request: RequestView, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        """The index of the replica that serves `request`, which arrives now. Arrivals come in order of time.

        Args:
            path: the chained hashes of the prompt's full blocks, from the first token on. Two prompts share a prefix
                as far as their paths are equal. The path is empty without prefix caching.
            replicas: all replicas in order of their index; there are at least 2.
        """
