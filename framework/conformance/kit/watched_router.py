"""A router under observation: every answer is looked at, and whatever it did to what it was shown."""

from __future__ import annotations

from collections.abc import Sequence

from framework.conformance.kit.finding import Violation
from framework.interfaces.router import Arrival, Hold, Refuse, ReplicaView, Router

RANGE = "names a replica of the fleet, whatever its size"
READS = "changes nothing of what it is shown"


class WatchedRouter(Router):
    """Passes every call on to `router`; `choices` are its answers, in order of the calls: an index, or the reason for
    which a request was held or refused.

    Raises:
        Violation: from `route`, for an answer that is none of these, or if `router` changed the path.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.asks_cached_blocks = router.asks_cached_blocks  # type: ignore[misc]
        self.choices: list[int | str] = []

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int | Hold | Refuse:
        name, shown = type(self.router).__name__, list(path)
        choice = self.router.route(request, shown, replicas)
        if shown != list(path):
            raise Violation(READS, f"{name} changed the path of request {request.id} from {list(path)} to {shown}")
        if isinstance(choice, Hold | Refuse):
            self.choices.append(f"{type(choice).__name__.lower()}: {choice.reason}")
            return choice
        if choice not in range(len(replicas)):
            raise Violation(
                RANGE, f"{name} sent request {request.id} to {choice!r}; there are 0 to {len(replicas) - 1}"
            )
        self.choices.append(int(choice))
        return choice

    def on_step(self, replica: ReplicaView) -> None:
        self.router.on_step(replica)

    def on_finish(self, request: Arrival, index: int, num_output: int) -> None:
        self.router.on_finish(request, index, num_output)
