"""Long cached prefixes first, as long as no client gets more than its share: locality within fairness."""

from math import floor

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


@SCHEDULERS.register("dlpm")
class DeficitLongestPrefix(Scheduler):
    """Cao et al., "Locality-aware Fair Scheduling in LLM Serving" (arXiv 2501.14312), algorithm DLPM. Each client has a
    deficit counter. Waiting requests are taken in the order of their longest cached prefix, but only from clients
    whose counter is above 0. A prompt is charged by the tokens that it computes, an output by its tokens. Where all
    waiting clients have used their counters up, each gets another quantum, until one of them is above 0.

    Differences: the paper orders by a walk over SGLang's radix tree, here by the number of cached tokens, of equals the
    first to arrive. With more than `max_waiting` requests only the first of them are looked at.

    Args:
        quantum: tokens that a client is granted at a time, at least 1: small is fair, large is local.
        output_weight: service per output token; a computed prompt token is 1.
        max_waiting: waiting requests that are matched with the cache.
        victim: the request that is preempted when blocks run out.
    """

    def __init__(
        self,
        *,
        quantum: float = 2000.0,
        output_weight: float = 2.0,
        max_waiting: int = 128,
        victim: Victim = "youngest",
    ) -> None:
        for name, value in (("quantum", quantum), ("max_waiting", max_waiting)):
            if not 1 <= value < float("inf"):
                raise ValueError(f"scheduler.{name}={value} must be a finite number, at least 1")
        if not 0 <= output_weight < float("inf"):
            raise ValueError(f"scheduler.output_weight={output_weight} must be a finite number, at least 0")
        self.quantum, self.output_weight, self.max_waiting = quantum, output_weight, max_waiting
        self.choose_victim = victim_chooser(victim)
        self.deficits: dict[str, float] = {}

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if continue_running(queue, plan, self.choose_victim) or not (plan.slots_left and plan.tokens_left):
            return
        waiting = [request for request, _ in zip(queue.waiting, range(self.max_waiting), strict=False)]
        cached = {request.id: plan.cached_tokens(request) for request in waiting}
        left = sorted(waiting, key=lambda request: -cached[request.id])  # stable
        while left:
            allowed = [request for request in left if self.deficits.get(request.client, 0.0) > 0]
            if not allowed:
                clients = {request.client for request in left}
                owed = min(-self.deficits.get(client, 0.0) for client in clients)
                granted = (floor(owed / self.quantum) + 1) * self.quantum  # as many quanta as one of them needs
                for client in clients:
                    self.deficits[client] = self.deficits.get(client, 0.0) + granted
                continue
            if plan.add(allowed[0]) is not Verdict.OK:
                return
            left.remove(allowed[0])
            if allowed[0].num_preemptions == 0:
                self._charge(allowed[0], allowed[0].num_prompt - cached[allowed[0].id])

    def on_tokens(self, request: RequestView, num_new: int) -> None:
        self._charge(request, self.output_weight * num_new)

    def _charge(self, request: RequestView, service: float) -> None:
        self.deficits[request.client] = self.deficits.get(request.client, 0.0) - service
