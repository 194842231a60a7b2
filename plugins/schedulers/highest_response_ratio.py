"""Highest response ratio next: short requests first, and every request's turn comes as it waits."""

import heapq

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.output_length import remaining_tokens
from framework.toolkit.schedulers.ranked import WaitingHeap
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


@SCHEDULERS.register("highest_response_ratio")
class HighestResponseRatio(Scheduler):
    """HRRN (Brinch Hansen, "An analysis of response ratio scheduling", IFIP 1971): the highest (waited + service) /
    service first. With service in tokens the order is that of waited / tokens, whatever a token costs. The tokens are
    those of the prompt and, unless `predictor=none`, those that are expected of the answer.

    Ratios of requests of different sizes cross over time. Of requests of one size, the first to arrive always leads, so
    that each step compares only one candidate per size.

    Args:
        victim: the request that is preempted when blocks run out.
    """

    def __init__(self, *, victim: Victim = "youngest") -> None:
        self.choose_victim = victim_chooser(victim)
        self._by_size: dict[int, WaitingHeap] = {}
        self._size: dict[int, int] = {}

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = continue_running(queue, plan, self.choose_victim)
        for request in preempted:
            self.on_arrival(request)
        if self._size and not preempted and plan.slots_left and plan.tokens_left:
            self._admit(queue.now_s, plan)

    def _admit(self, now_s: float, plan: StepPlan) -> None:
        leaders: list[tuple[float, int, RequestView]] = []
        for size, group in self._by_size.items():
            _push_leader(leaders, now_s, size, group)
        while leaders:
            request = heapq.heappop(leaders)[2]
            if plan.add(request) is not Verdict.OK:
                break
            size = self._size[request.id]
            group = self._by_size[size]
            self._leave(request)
            _push_leader(leaders, now_s, size, group)

    def on_arrival(self, request: RequestView) -> None:
        # At least 1: a victim whose last token is in flight has nothing pending.
        size = max(1, round(request.num_pending + remaining_tokens(request)))
        self._size[request.id] = size
        self._by_size.setdefault(size, WaitingHeap()).push(request, request.arrival_s)

    def on_finish(self, request: RequestView) -> None:
        self._leave(request)

    def _leave(self, request: RequestView) -> None:
        size = self._size.pop(request.id, None)
        if size is not None:  # it waited
            self._by_size[size].discard(request)
            if not self._by_size[size]:
                del self._by_size[size]


def _push_leader(leaders: list[tuple[float, int, RequestView]], now_s: float, size: int, group: WaitingHeap) -> None:
    if (request := group.first()) is not None:
        heapq.heappush(leaders, ((request.arrival_s - now_s) / size, request.id, request))
