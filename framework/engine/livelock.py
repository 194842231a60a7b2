"""Notices schedulers whose requests preempt each other for ever."""

from __future__ import annotations

from framework.engine.request import Request
from framework.interfaces.errors import StuckError

MAX_FRUITLESS_PREEMPTIONS = 200
"""How often one request may be preempted while no request gets any further. Sound policies need 1, since a preemption
lets another request get on. `scheduler=random`, which draws lots, took at most 5 in 800 random traces with tiny caches.
"""


class LivelockGuard:
    """Counts preemptions since the last progress of any request.

    Progress is a row that samples a token, or one that computes a request further than it ever was. Each of the two can
    happen only so often until all requests have ended, and between two preemptions only so many rows run without it. So
    a run that does not end preempts some request without end and without progress, and that is what is counted.
    """

    def __init__(self) -> None:
        self._preemptions: dict[int, int] = {}  # by request, since the last progress

    def progressed(self) -> None:
        """Note that a step in flight takes some request further than it ever was."""
        if self._preemptions:
            self._preemptions.clear()

    def preempted(self, request: Request) -> None:
        """Note that `request` is about to lose what it computed.

        Raises:
            StuckError: this has happened to it too often. The message names it.
        """
        request.furthest_tokens = max(request.furthest_tokens, request.num_computed)
        number = self._preemptions[request.id] = self._preemptions.get(request.id, 0) + 1
        if number > MAX_FRUITLESS_PREEMPTIONS:
            others = sorted(self._preemptions.keys() - {request.id})
            raise StuckError(
                f"request {request.id} was preempted {number} times (and {len(others)} others, {others[:5]}) while no "
                f"request got any further, so none would ever end. Let running requests get on before preempting them"
            )
