"""Nothing but decode rows while enough requests decode; prompts run when too few are left."""

from framework.interfaces.scheduler import Queue, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


@SCHEDULERS.register("decode_first")
class DecodeFirst(Scheduler):
    """Decode-prioritizing (a term of Sarathi-Serve, OSDI'24): no decode waits for a prompt or runs beside one. This
    gives the lowest time between tokens and the longest wait for the first token. It is the mirror of `prefill_first`.

    Args:
        refill_below: when fewer requests than this decode, prompts run, first come first served, until no more fit. 1
            lets a batch drain completely; about `max_num_seqs` keeps it full at the price of more interruptions.
        victim: the request that is preempted when blocks run out.
    """

    def __init__(self, *, refill_below: int = 1, victim: Victim = "youngest") -> None:
        if refill_below < 1:
            raise ValueError(f"scheduler.refill_below={refill_below} must be at least 1, or no prompt would ever run")
        self.refill_below = refill_below
        self.choose_victim = victim_chooser(victim)
        self._refilling = True

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        self._refilling |= sum(request.num_pending == 1 for request in queue.running) < self.refill_below
        if self._refilling and not self._prefill(queue, plan):
            self._refilling = False
        if not self._refilling:
            continue_running(queue, plan, self.choose_victim)

    def _prefill(self, queue: Queue, plan: StepPlan) -> bool:
        """Fill the plan with prompts, and return whether there was any."""
        planned = False
        for request in queue.running:  # prompts that the budget split
            planned |= request.num_pending > 1 and plan.add(request) is Verdict.OK
        while queue.waiting and plan.add(queue.waiting[0]) is Verdict.OK:
            planned = True
        return planned
