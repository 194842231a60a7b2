"""Decode rows first, then prefill chunks in what is left of the budget."""

from framework.interfaces.scheduler import Queue, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.victim import Victim, victim_chooser


@SCHEDULERS.register("chunked_prefill")
class ChunkedPrefill(Scheduler):
    """Mixed batches, first come first served: decodes never wait for a prompt (Sarathi-Serve, OSDI'24).

    Args:
        max_chunk_tokens: prompt tokens of one request that run in a step at most; null leaves the whole budget to it.
        victim: who is preempted when blocks run out.
    """

    def __init__(self, *, max_chunk_tokens: int | None = None, victim: Victim = "youngest") -> None:
        if max_chunk_tokens is not None and max_chunk_tokens < 1:
            raise ValueError(f"scheduler.max_chunk_tokens={max_chunk_tokens} must be at least 1, or null for no limit")
        self.max_chunk_tokens = max_chunk_tokens
        self.choose_victim = victim_chooser(victim)

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = False
        prefilling = []
        for request in tuple(queue.running):
            if request.num_pending > 1:
                prefilling.append(request)
                continue
            while request.running and plan.add(request) is Verdict.NO_BLOCKS:
                plan.preempt(self.choose_victim(queue.running))
                preempted = True
        for request in prefilling:
            while request.running and plan.add(request, self.max_chunk_tokens) is Verdict.NO_BLOCKS:
                plan.preempt(self.choose_victim(queue.running))
                preempted = True
        while queue.waiting and not preempted:  # who was preempted just now must not come straight back
            if plan.add(queue.waiting[0], self.max_chunk_tokens) is not Verdict.OK:
                break
