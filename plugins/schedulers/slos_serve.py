"""Requests whose objectives can all be met are served in time, and one that would break them waits behind them."""

from collections.abc import Sequence
from math import inf

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.prompt_budget import prompt_budget
from framework.toolkit.schedulers.victim import continue_running


@SCHEDULERS.register("slos_serve")
class SlosServe(Scheduler):
    """Chen et al., "SLOs-Serve: Optimized Serving of Multi-SLO LLMs" (arXiv 2504.08784), without speculative decoding.
    A step takes as long as the tightest pace of the guaranteed requests that run allows, and holds as many prompt
    tokens as a forecast says. An arrival is guaranteed if at that rate its prompt and those of all guaranteed requests
    before it, the earliest deadline first, end in time. Any other is served as best effort, with what is left.

    Differences: the paper finds the best set of requests by dynamic programming over value and memory, here they are
    taken one by one, at their first look. It plans batches of different lengths ahead for several paces, here every
    step keeps the tightest one. Requests without objectives have those of this scheduler.

    Args:
        ttft_s: objective of the time to first token of requests that state none.
        tpot_s: objective of the time per output token of requests that state none.
        first_chunk_tokens: prompt tokens per step before any forecast.
    """

    asks_forecast = True

    def __init__(self, *, ttft_s: float = 1.0, tpot_s: float = 0.05, first_chunk_tokens: int = 512) -> None:
        for name, value in (("ttft_s", ttft_s), ("tpot_s", tpot_s), ("first_chunk_tokens", first_chunk_tokens)):
            if not 0 < value < inf:
                raise ValueError(f"scheduler.{name}={value} must be a finite number above 0")
        self.ttft_s, self.tpot_s, self.first_chunk_tokens = ttft_s, tpot_s, first_chunk_tokens
        self.guaranteed: dict[int, bool] = {}
        """By request: whether its objectives can be met. Decided in the first step that sees it."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        decoding = [request for request in queue.running if request.num_pending == 1]
        kept = [request for request in decoding if self.guaranteed.get(request.id)]
        pace_s = min((request.spec.tpot_slo_s or self.tpot_s for request in kept), default=self.tpot_s)
        budget = prompt_budget(queue, plan, decoding, pace_s, unknown=self.first_chunk_tokens)
        self._decide(queue, budget / pace_s)
        if continue_running(queue, plan, self._victim, max_chunk_tokens=budget):
            return
        budget -= sum(request.num_pending for request in queue.running if request.num_pending > 1)
        for request in sorted(queue.waiting, key=self._rank):
            if budget < 1 or plan.add(request, budget) is not Verdict.OK:
                return
            budget -= request.num_pending

    def _decide(self, queue: Queue, tokens_per_s: float) -> None:
        """Guarantee those that have just come, where all that are guaranteed still end in time."""
        new = [request for request in queue.waiting if request.id not in self.guaranteed]
        if not new:
            return
        prompts = [request for request in (*queue.running, *queue.waiting) if request.num_pending > 1]
        accepted = [request for request in prompts if self.guaranteed.get(request.id)]
        for request in new:
            tried = sorted([*accepted, request], key=self._due_s)
            end_s, in_time = queue.now_s, True
            for one in tried:
                end_s += one.num_pending / tokens_per_s
                in_time &= end_s <= self._due_s(one) or one.num_output > 0
            self.guaranteed[request.id] = in_time
            accepted = tried if in_time else accepted

    def _due_s(self, request: RequestView) -> float:
        return request.arrival_s + (request.spec.ttft_slo_s or self.ttft_s)

    def _rank(self, request: RequestView) -> tuple[bool, float, int]:
        guaranteed = self.guaranteed[request.id]
        return not guaranteed, self._due_s(request) if guaranteed else request.arrival_s, request.id

    def _victim(self, running: Sequence[RequestView]) -> RequestView:
        """The last one of those that are best effort, else the last one."""
        return max(running, key=lambda request: (not self.guaranteed[request.id], request.id))

    def on_finish(self, request: RequestView) -> None:
        self.guaranteed.pop(request.id, None)
