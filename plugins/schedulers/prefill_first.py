"""All waiting prompts that fit run before anything decodes."""

from framework.interfaces.scheduler import Queue, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.victim import Victim, victim_chooser


@SCHEDULERS.register("prefill_first")
class PrefillFirst(Scheduler):
    """Whole prompts, first come first served, in steps of their own; decodes run when none fits (the order of Orca,
    OSDI'22, and nano-vLLM). Only a prompt that a whole budget cannot hold is split.

    Args:
        victim: the request that is preempted when blocks run out.
    """

    def __init__(self, *, victim: Victim = "youngest") -> None:
        self.choose_victim = victim_chooser(victim)

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if self._prefill(queue, plan):
            return
        for request in tuple(queue.running):
            while request.running and plan.add(request) is Verdict.NO_BLOCKS:
                plan.preempt(self.choose_victim(queue.running))

    def _prefill(self, queue: Queue, plan: StepPlan) -> bool:
        """Fill the plan with prompts, and return whether there was any."""
        planned = False
        for request in tuple(queue.running[-1:]):  # only the youngest can have been split
            if request.num_pending > 1:
                planned = plan.add(request) is Verdict.OK
        while queue.waiting:
            request = queue.waiting[0]
            if planned and request.num_pending - plan.cached_tokens(request) > plan.tokens_left:
                break
            if plan.add(request) is not Verdict.OK:
                break
            planned = True
        return planned
