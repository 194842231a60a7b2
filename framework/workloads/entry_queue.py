"""Which request enters the engine next: drawn arrivals in order, and follow-ups once what they follow has ended."""

from __future__ import annotations

import dataclasses
import heapq
from array import array
from collections import defaultdict
from collections.abc import Iterable

from framework.interfaces.observer import Output
from framework.interfaces.workload import TimedRequest


class EntryQueue:
    """Requests by arrival. Requests with the same arrival time enter in the order of the workload.

    A follow-up (`TimedRequest.after`) arrives `delay_s` after the request that it follows has ended. Its prompt
    continues the prompt and output of that request. Its arrival depends on the speed of the engine (a closed loop).

    With `max_concurrency`, a request that arrives while so many are in the engine is sent when one of them ends. Its
    arrival is that time, since a client that waits for its own answers counts from there (a closed load).

    Args:
        requests: the prepared requests. Those that follow no other request are in order of arrival.
        max_concurrency: how many requests may be in the engine at once; None sets no limit.
    """

    def __init__(self, requests: Iterable[TimedRequest], max_concurrency: int | None = None) -> None:
        self._requests = list(requests)
        self._free_s = None if max_concurrency is None else [0.0] * max_concurrency
        """A heap of the times since which each free place is free; None without a limit."""
        self._drawn = [i for i, request in enumerate(self._requests) if request.after is None]
        self._num_drawn = 0
        self._followers: dict[int, list[int]] = defaultdict(list)
        for i, request in enumerate(self._requests):
            if request.after is not None:
                self._followers[request.after].append(i)
        self._ready: list[tuple[float, int, TimedRequest]] = []
        """Follow-ups whose arrival is known: a heap by arrival and place."""

    @property
    def next_s(self) -> float | None:
        """When the next request arrives; None if no arrival is known, or if another one has to end first."""
        if self._free_s is None:
            return self._arrival_s()
        if not self._free_s or (arrival_s := self._arrival_s()) is None:
            return None
        return max(arrival_s, self._free_s[0])

    def _arrival_s(self) -> float | None:
        drawn = self._requests[self._drawn[self._num_drawn]].arrival_s if self._num_drawn < len(self._drawn) else None
        ready = self._ready[0][0] if self._ready else None
        if drawn is None or ready is None:
            return ready if drawn is None else drawn
        return min(drawn, ready)

    def pop(self) -> tuple[int, TimedRequest]:
        """The next request, with its place in the workload."""
        place, request = self._pop()
        if self._free_s is None:
            return place, request
        late_s = heapq.heappop(self._free_s) - request.arrival_s
        if late_s <= 0:
            return place, request
        deadline_s = None if request.deadline_s is None else request.deadline_s + late_s
        return place, dataclasses.replace(request, arrival_s=request.arrival_s + late_s, deadline_s=deadline_s)

    def _pop(self) -> tuple[int, TimedRequest]:
        if self._num_drawn < len(self._drawn):
            place = self._drawn[self._num_drawn]
            request = self._requests[place]
            if not self._ready or (request.arrival_s, place) < self._ready[0][:2]:
                self._num_drawn += 1
                return place, request
        _, place, request = heapq.heappop(self._ready)
        return place, request

    def ended(self, place: int, request: TimedRequest, output: Output) -> None:
        """Schedule the follow-ups of `request`, which is at that place in the workload and has finished."""
        assert output.record is not None
        self._leave(output.record.finish_s)
        for follower in self._followers.pop(place, ()):
            turn = self._requests[follower]
            ids = array("i", request.prompt_token_ids or ())
            ids.extend(output.token_ids)
            ids.extend(turn.prompt_token_ids or ())
            self._push(follower, dataclasses.replace(turn, prompt_token_ids=ids), output.record.finish_s + turn.delay_s)

    def refused(self, place: int, now_s: float) -> None:
        """Let the follow-ups of a request that never ran enter now. They cannot run either and are refused in turn."""
        self._leave(now_s)
        for follower in self._followers.pop(place, ()):
            turn = self._requests[follower]
            error = turn.error or "the request that it follows was refused"
            self._push(follower, dataclasses.replace(turn, error=error), now_s)

    def _leave(self, now_s: float) -> None:
        if self._free_s is not None:
            heapq.heappush(self._free_s, now_s)

    def _push(self, place: int, request: TimedRequest, arrival_s: float) -> None:
        heapq.heappush(self._ready, (arrival_s, place, dataclasses.replace(request, arrival_s=arrival_s)))
