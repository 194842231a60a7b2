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
        """Its place among the replicas, from 0."""

    @property
    def num_requests(self) -> int:
        """Requests sent to it and not yet finished."""

    @property
    def num_prompt_tokens(self) -> int:
        """Prompt tokens of these requests."""

    @property
    def num_blocks(self) -> int:
        """Size of its KV cache."""


class Router(ABC):
    """Base of all routers. One object serves one run, and the same arrivals get the same choices in each.

    A replica that gets nothing while all others have more than they can serve is a fault; otherwise a router is free.

    Plugins register with `@ROUTERS.register("name")` and take keyword-only, annotated parameters.
    """

    @abstractmethod
    def route(self, request: RequestView, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        """The index of the replica that serves `request`, which arrives now. Arrivals come in order of time.

        Args:
            path: chained hashes of the prompt's full blocks, from the first token on: two prompts share a prefix as
                far as their paths are equal. Empty without prefix caching.
            replicas: all of them, in order of their index; at least 2.
        """
