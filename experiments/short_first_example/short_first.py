"""Short prompts first, decided by what the prefix cache leaves of them."""

from framework.interfaces import Queue, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS


@SCHEDULERS.register("short_first")
class ShortFirst(Scheduler):
    """Waiting prompts by the tokens that still have to be computed, the fewest first.

    Args:
        max_prompts: waiting requests that are admitted in a step at most.
    """

    def __init__(self, *, max_prompts: int = 8) -> None:
        self.max_prompts = max_prompts

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = False
        for request in tuple(queue.running):
            while request.running and plan.add(request) is Verdict.NO_BLOCKS:
                plan.preempt(queue.running[-1])
                preempted = True
        waiting = sorted(queue.waiting, key=lambda request: request.num_pending - plan.cached_tokens(request))
        for request in () if preempted else waiting[: self.max_prompts]:
            if plan.add(request) is not Verdict.OK:
                break
