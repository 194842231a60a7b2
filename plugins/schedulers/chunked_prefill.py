"""Decode rows first, then prefill chunks in what is left of the budget."""

from framework.interfaces.scheduler import Queue, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


@SCHEDULERS.register("chunked_prefill")
class ChunkedPrefill(Scheduler):
    """Mixed batches, first come first served: decodes never wait for a prompt (Sarathi-Serve, OSDI'24).

    Args:
        max_chunk_tokens: most prompt tokens of one request per step; null leaves the whole budget to it.
        victim: the request that is preempted when blocks run out.
    """

    def __init__(self, *, max_chunk_tokens: int | None = None, victim: Victim = "youngest") -> None:
        if max_chunk_tokens is not None and max_chunk_tokens < 1:
            raise ValueError(f"scheduler.max_chunk_tokens={max_chunk_tokens} must be at least 1, or null for no limit")
        self.max_chunk_tokens = max_chunk_tokens
        self.choose_victim = victim_chooser(victim)

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if continue_running(queue, plan, self.choose_victim, max_chunk_tokens=self.max_chunk_tokens):
            return  # the blocks just freed belong to those that run
        while queue.waiting and plan.add(queue.waiting[0], self.max_chunk_tokens) is Verdict.OK:
            pass
