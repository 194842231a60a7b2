"""A router under observation. It is shown copies of what a fleet shows, and every answer is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from framework.conformance.kit.finding import Violation
from framework.interfaces.router import ReplicaView, Router
from framework.interfaces.scheduler import RequestView

RANGE = "names a replica of the fleet, whatever its size"
READS = "changes nothing of what it is shown"


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A `ReplicaView` that cannot be written to."""

    index: int
    num_requests: int
    num_prompt_tokens: int
    num_blocks: int


class WatchedRouter(Router):
    """Passes every call on to `router`. `choices` are its answers in order of arrival.

    Raises:
        Violation: from `route`, if the answer is not an index, or if `router` changed the path.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.choices: list[int] = []

    def route(self, request: RequestView, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        name, shown = type(self.router).__name__, list(path)
        states = tuple(ReplicaState(r.index, r.num_requests, r.num_prompt_tokens, r.num_blocks) for r in replicas)
        index = self.router.route(request, shown, states)
        if index not in range(len(replicas)):
            raise Violation(RANGE, f"{name} sent request {request.id} to {index!r}; there are 0 to {len(replicas) - 1}")
        if shown != list(path):
            raise Violation(READS, f"{name} changed the path of request {request.id} from {list(path)} to {shown}")
        self.choices.append(int(index))
        return index
