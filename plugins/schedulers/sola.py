"""Whichever objective is worse off comes first, as far as the other one allows: the state decides in every step."""

from math import inf

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.prompt_budget import prompt_budget
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


@SCHEDULERS.register("sola")
class Sola(Scheduler):
    """Hong et al., "SOLA: Optimizing SLO Attainment for Large Language Model Serving with State-Aware Scheduling"
    (MLSys'25). Each step compares the worst time to first token of waiting requests with the worst time per output
    token of running ones, relative to their objectives. If the former is worse, prompts get as many tokens as a
    forecast of the step says that the pace of the running requests allows, else those of half that time.

    Differences: the paper solves an optimisation over the order and the workload of both phases. Here the order is by
    the share of its objective that a request has used up, and the workload is a number of prompt tokens, found by
    bisection over `queue.forecast`. Before the first forecast a step takes `first_chunk_tokens`.

    Args:
        ttft_s: objective of the time to first token of requests that state none.
        tpot_s: objective of the time per output token of requests that state none.
        first_chunk_tokens: prompt tokens per step before any forecast.
        victim: the request that is preempted when blocks run out.
    """

    asks_forecast = True

    def __init__(
        self, *, ttft_s: float = 1.0, tpot_s: float = 0.05, first_chunk_tokens: int = 512, victim: Victim = "youngest"
    ) -> None:
        for name, value in (("ttft_s", ttft_s), ("tpot_s", tpot_s), ("first_chunk_tokens", first_chunk_tokens)):
            if not 0 < value < inf:
                raise ValueError(f"scheduler.{name}={value} must be a finite number above 0")
        self.ttft_s, self.tpot_s, self.first_chunk_tokens = ttft_s, tpot_s, first_chunk_tokens
        self.choose_victim = victim_chooser(victim)
        self._first_s: dict[int, float] = {}
        """When requests that run got their first token."""
        self._now_s = 0.0

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        self._now_s = queue.now_s
        decoding = [request for request in queue.running if request.num_pending == 1]
        prefilling = [request for request in queue.running if request.num_pending > 1]
        tightest_s = min((self._left_s(request) for request in decoding), default=inf)
        worst = max((self._pace(request) for request in decoding), default=0.0)
        waiting = sorted(queue.waiting, key=lambda request: (-self._used(request), request.id))
        worst_wait = max(map(self._used, [*prefilling, *waiting[:1]]), default=0.0)
        limit_s = tightest_s if worst_wait > worst else tightest_s / 2
        budget = prompt_budget(queue, plan, decoding, limit_s, unknown=self.first_chunk_tokens)
        if continue_running(queue, plan, self.choose_victim, max_chunk_tokens=max(1, budget)):
            return
        budget -= sum(request.num_pending for request in prefilling)
        for request in waiting:
            if budget < 1 or plan.add(request, budget) is not Verdict.OK:
                return
            budget -= request.num_pending

    def _used(self, request: RequestView) -> float:
        """The share of its time to first token that a request has waited."""
        return (self._now_s - request.arrival_s) / (request.spec.ttft_slo_s or self.ttft_s)

    def _pace(self, request: RequestView) -> float:
        """Its time per output token so far, relative to its objective."""
        spent_s = self._now_s - self._first_s.get(request.id, self._now_s)
        return spent_s / max(1, request.num_output) / (request.spec.tpot_slo_s or self.tpot_s)

    def _left_s(self, request: RequestView) -> float:
        """How long its next token may take, at least its pace by 4."""
        pace_s = request.spec.tpot_slo_s or self.tpot_s
        due_s = self._first_s.get(request.id, self._now_s) + pace_s * max(1, request.num_output)
        return max(due_s - self._now_s, pace_s / 4)

    def on_tokens(self, request: RequestView, num_new: int) -> None:
        self._first_s.setdefault(request.id, self._now_s)

    def on_finish(self, request: RequestView) -> None:
        self._first_s.pop(request.id, None)
