"""One engine of a fleet, and what its router knows of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from framework.engine.engine import Engine
from framework.engine.request import Request
from framework.interfaces.router import Arrival, ReplicaView


class Ended(NamedTuple):
    """A request that has ended; the router hears of it when its time has come."""

    finish_s: float
    replica: int
    request: Arrival
    num_output: int


class Report(NamedTuple):
    """The state of a replica as one of its steps ended."""

    time_s: float
    num_running: int
    num_waiting: int
    num_used_blocks: int


_NOTHING = Report(0.0, 0, 0, 0)


@dataclass(slots=True)
class Replica:
    """An engine, the gateway's books of it, and its last report. A router is shown a `ReplicaView` of these."""

    index: int
    engine: Engine
    hardware: str
    staleness_s: float
    reports_cache: bool
    """Whether its router asks for cached blocks."""
    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_sent: int = 0
    """Requests routed to it since start."""
    ended: deque[Ended] = field(default_factory=deque)
    """Requests that the router does not know to have ended yet, in order of their end."""
    report: Report = _NOTHING
    reported_s: float = -inf
    """When the report was taken, which holds until `staleness_s` later."""
    _steps: deque[Report] = field(default_factory=lambda: deque(maxlen=8))
    """One for each of the last steps; at most one of them has not ended yet, in the fleet's time."""
    _cached: Container[int] = ()
    """Hashes in the prefix cache as of the report, where that may be out of date."""

    def step_ended(self, finish_s: float) -> None:
        """Called with the engine as it is at the end of each step."""
        queue, cache = self.engine.queue, self.engine.cache
        used = len(cache.blocks) - cache.num_free
        self._steps.append(Report(finish_s, len(queue.running), len(queue.waiting), used))

    def send(self, request: Request, output_tokens: int | None, now_s: float) -> None:
        """Queue what the gateway sends at `now_s`."""
        self.num_requests += 1
        self.num_prompt_tokens += request.num_prompt
        self.num_sent += 1
        if not self.engine.has_work:
            self.engine.clock.sleep_until(now_s)
        self.engine.enqueue(request, output_tokens)
        if self._steps and self._steps[-1].time_s > now_s:  # it came during the step that has run ahead
            self._steps[-1] = self._steps[-1]._replace(num_waiting=self._steps[-1].num_waiting + 1)

    def settle(self, now_s: float) -> list[Ended]:
        """Let the gateway know of what has ended by `now_s`, and return it."""
        news = []
        while self.ended and self.ended[0].finish_s <= now_s:
            news.append(self.ended.popleft())
            self.num_requests -= 1
            self.num_prompt_tokens -= news[-1].request.num_prompt
        return news

    def take_report(self, now_s: float) -> bool:
        """Renew the report if it is old enough; whether it says anything new."""
        if now_s - self.reported_s < self.staleness_s:
            return False
        self.reported_s, before = now_s, self.report
        while self._steps and self._steps[0].time_s <= now_s:
            self.report = self._steps.popleft()
        if self.reports_cache:
            hashes = self.engine.cache.cached_hashes
            self._cached = frozenset(hashes) if self.staleness_s else hashes
        return self.report is not before

    def view(self, path: Sequence[int] = ()) -> ReplicaView:
        report = self.report
        return ReplicaView(
            index=self.index,
            num_requests=self.num_requests,
            num_prompt_tokens=self.num_prompt_tokens,
            num_blocks=len(self.engine.cache.blocks),
            num_running=report.num_running,
            num_waiting=report.num_waiting,
            num_used_blocks=report.num_used_blocks,
            num_cached_blocks=next((i for i, one in enumerate(path) if one not in self._cached), len(path)),
            hardware=self.hardware,
        )
