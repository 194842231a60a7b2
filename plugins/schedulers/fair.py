"""Fairness among clients: the waiting client that was served least goes first."""

import heapq

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.ranked import WaitingHeap
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


@SCHEDULERS.register("fair")
class Fair(Scheduler):
    """Virtual token counter (VTC: "Fairness in Serving Large Language Models", OSDI'24). The counter of a client
    grows by its weighted tokens: a prompt's at its first admission, an output's when it is delivered. A client that
    begins to wait is lifted to the least counter of the waiting clients, so that an idle client saves nothing up.

    Two clients that always have requests waiting differ in service by at most 2 max(prompt_weight * longest prompt,
    output_weight * tokens of a full batch), the paper's bound. With overlap, tokens in flight are counted a
    step late; computing again what a preemption took away is not charged.

    Args:
        prompt_weight: service per prompt token.
        output_weight: service per output token.
        victim: the request that is preempted when blocks run out.
    """

    def __init__(self, *, prompt_weight: float = 1.0, output_weight: float = 2.0, victim: Victim = "youngest") -> None:
        for name, weight in (("prompt_weight", prompt_weight), ("output_weight", output_weight)):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"scheduler.{name}={weight} must be a finite number, at least 0")
        self.prompt_weight, self.output_weight = prompt_weight, output_weight
        self.choose_victim = victim_chooser(victim)
        self.counters: dict[str, float] = {}
        self._waiting: dict[str, WaitingHeap] = {}
        self._last_left = ""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = continue_running(queue, plan, self.choose_victim)
        for request in preempted:
            self.on_arrival(request)
        if self._waiting and not preempted and plan.slots_left and plan.tokens_left:
            self._admit(plan)

    def _admit(self, plan: StepPlan) -> None:
        least = [(self.counters[client], client) for client in self._waiting]
        heapq.heapify(least)
        while least:
            client = least[0][1]
            request = self._waiting[client].first()
            if request is None or plan.add(request) is not Verdict.OK:
                break
            if request.num_preemptions == 0:
                self.counters[client] += self.prompt_weight * request.num_prompt
            self.on_finish(request)
            if client in self._waiting:
                heapq.heapreplace(least, (self.counters[client], client))
            else:
                heapq.heappop(least)

    def on_arrival(self, request: RequestView) -> None:
        client, counters = request.client, self.counters
        if client not in self._waiting:
            floor = min((counters[other] for other in self._waiting), default=counters.get(self._last_left, 0.0))
            counters[client] = max(counters.get(client, 0.0), floor)
            self._waiting[client] = WaitingHeap()
        self._waiting[client].push(request, request.arrival_s)

    def on_tokens(self, request: RequestView, num_new: int) -> None:
        self.counters[request.client] += self.output_weight * num_new

    def on_finish(self, request: RequestView) -> None:
        waiting = self._waiting.get(request.client)
        if waiting is not None:
            waiting.discard(request)
            if not waiting:
                del self._waiting[request.client]
                self._last_left = request.client
