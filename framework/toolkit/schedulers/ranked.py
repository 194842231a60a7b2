"""Base class of schedulers that rank waiting requests. The lowest rank is admitted first; the base keeps the order."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from typing import Any

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


class WaitingHeap:
    """Waiting requests by rank, the lowest first, then by id, which is the order of arrival. A change takes O(log n).

    A request that was removed stays in the heap until it surfaces or the heap is rebuilt.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Any, int, int, RequestView]] = []
        self._tickets: dict[int, int] = {}
        self._num_pushed = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, request: RequestView) -> bool:
        return request.id in self._tickets

    def push(self, request: RequestView, rank: Any) -> None:
        """Add `request`, or give it another rank. Ranks are compared with `<`."""
        self._num_pushed += 1
        self._tickets[request.id] = self._num_pushed
        heapq.heappush(self._heap, (rank, request.id, self._num_pushed, request))
        if len(self._heap) > 2 * len(self._tickets) + 64:  # mostly stale entries: rebuild, amortised O(1) per push
            self._heap = [entry for entry in self._heap if self._tickets.get(entry[1]) == entry[2]]
            heapq.heapify(self._heap)

    def discard(self, request: RequestView) -> None:
        """Forget `request`, if it is here."""
        self._tickets.pop(request.id, None)

    def first(self) -> RequestView | None:
        """The request of the lowest rank; None if no request waits."""
        heap = self._heap
        while heap:
            if self._tickets.get(heap[0][1]) == heap[0][2]:
                return heap[0][3]
            heapq.heappop(heap)
        return None

    def pop_up_to(self, rank: Any) -> list[RequestView]:
        """Remove and return, in order, all requests of this rank or a lower one."""
        popped = []
        while (request := self.first()) is not None and self._heap[0][0] <= rank:
            self.discard(request)
            popped.append(request)
        return popped


class RankedScheduler(Scheduler):
    """Continuous batching in the order of `rank`: every running request, then waiting ones, the lowest rank first.

    The first request that does not fit ends admission, so that small requests cannot overtake a large one for ever.
    """

    def __init__(self, *, victim: Victim = "youngest") -> None:
        self.choose_victim = victim_chooser(victim)
        self.waiting = WaitingHeap()

    @abstractmethod
    def rank(self, request: RequestView) -> Any:
        """The rank of `request` among the waiting requests. Called on its arrival and after each preemption."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = continue_running(queue, plan, self.choose_victim)
        for request in preempted:
            self.waiting.push(request, self.rank(request))
        if not preempted:
            self.admit(plan)

    def admit(self, plan: StepPlan) -> None:
        """Admit waiting requests until one does not fit."""
        while (request := self.waiting.first()) is not None and plan.add(request) is Verdict.OK:
            self.waiting.discard(request)

    def on_arrival(self, request: RequestView) -> None:
        self.waiting.push(request, self.rank(request))

    def on_finish(self, request: RequestView) -> None:
        self.waiting.discard(request)
