"""The router: which replica of a fleet serves a request. It knows what a gateway could know, and no engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request at the gateway: what its sender states. The fields are those of a `RequestView`."""

    id: int
    arrival_s: float
    num_prompt: int
    params: SamplingParams
    priority: int = 0
    client: str = ""
    category: str = ""
    deadline_s: float | None = None
    spec: RequestSpec = field(default_factory=RequestSpec)
    """All that its sender stated; never the true length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """What a router may know of a replica: numbers, which lead to no engine.

    `num_requests` and `num_prompt_tokens` are the gateway's own books, exact at the time of the decision. What is "as
    reported" is of the replica's last report; one is taken at a decision if the one before is at least
    `executor.router_staleness_s` old. Of a step that has not ended by then it says nothing.
    """

    index: int
    """Its place among the replicas, from 0."""
    num_requests: int
    """Requests sent to it and not yet finished."""
    num_prompt_tokens: int
    """Prompt tokens of these requests."""
    num_blocks: int
    """Size of its KV cache."""
    num_running: int = 0
    """Requests that hold a slot, as reported."""
    num_waiting: int = 0
    """Requests that wait in the replica, as reported; those sent since then are in `num_requests` only."""
    num_used_blocks: int = 0
    """KV blocks that requests hold, as reported."""
    num_cached_blocks: int = 0
    """How many leading blocks of the arrival's path its prefix cache holds, as reported; 0 unless the router sets
    `asks_cached_blocks`, and in `on_step`."""
    hardware: str = ""
    """What it runs on, such as "h200"."""
    role: str = "any"
    """What it is for: "any" serves prompts and decodes."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The request waits at the gateway. The router is asked again whenever a step of the fleet has ended."""

    reason: str
    """In a few words, alike for requests held for the same cause: the record counts requests by it."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request ends as rejected."""

    reason: str
    """As of `Hold`."""


class Router(ABC):
    """Base of all routers. One object serves one run, and the same arrivals get the same choices in each.

    It is a fault if one replica gets nothing while all others have more than they can serve. Apart from that a router
    is free to choose.

    Plugins register with `@ROUTERS.register("name")` and take keyword-only, annotated parameters.
    """

    asks_cached_blocks: ClassVar[bool] = False
    """Whether it reads `ReplicaView.num_cached_blocks`, which costs a look-up per block and replica."""

    @abstractmethod
    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int | Hold | Refuse:
        """The index of the replica that serves `request`, or why it waits or ends. Arrivals come in order of time.

        Holding a request while every replica is idle is an error, since nothing would ever change.

        Args:
            path: the chained hashes of the prompt's full blocks, from the first token on. Two prompts share a prefix
                as far as their paths are equal. The path is empty without prefix caching.
            replicas: all replicas in order of their index; there are at least 2.
        """

    def on_step(self, replica: ReplicaView) -> None:
        """`replica` has reported since the last decision. Called before the next one."""

    def on_finish(self, request: Arrival, index: int, num_output: int) -> None:
        """`request`, sent to replica `index`, has ended with that many tokens. Called before the next decision, in
        order of time."""
