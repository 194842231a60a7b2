"""Cache-aware order: requests that share cached prompt tokens go first, before these tokens are evicted."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.victim import Victim, continue_running, victim_chooser


@SCHEDULERS.register("longest_prefix")
class LongestPrefix(Scheduler):
    """Cache-aware scheduling ("SGLang: Efficient Execution of Structured Language Model Programs", NeurIPS'24).
    A request without a cached prefix can starve.

    Waiting requests are matched again only after something happened that can change their order: an arrival, an
    admission, a preemption, an end, or a prompt chunk that was computed.

    Args:
        order: `longest`: the most cached prompt tokens first (SGLang's lpm). `depth_first`: the tree of cached blocks
            in depth-first order, the branch that most waiting requests share first (SGLang's dfs-weight).
        max_waiting: with more waiting requests than this, first come first served, as in SGLang: matching all of them
            takes too long.
        victim: the request that is preempted when blocks run out.
    """

    def __init__(
        self,
        *,
        order: Literal["longest", "depth_first"] = "longest",
        max_waiting: int = 128,
        victim: Victim = "youngest",
    ) -> None:
        if order not in ("longest", "depth_first"):
            raise ValueError(f"scheduler.order={order!r} does not exist; choose from longest, depth_first")
        if max_waiting < 0:
            raise ValueError(f"scheduler.max_waiting={max_waiting} must be at least 0")
        self.depth_first, self.max_waiting = order == "depth_first", max_waiting
        self.choose_victim = victim_chooser(victim)
        self._order: list[RequestView] | None = None  # None: to be found again

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        prefilling = any(request.num_pending > 1 for request in queue.running)
        preempted = continue_running(queue, plan, self.choose_victim)
        if queue.waiting and not preempted and plan.slots_left and plan.tokens_left:
            self._admit(queue, plan)
        if prefilling or preempted:
            self._order = None  # for the next plan

    def _admit(self, queue: Queue, plan: StepPlan) -> None:
        if len(queue.waiting) > self.max_waiting:
            candidates = list(queue.waiting)
        elif self._order is None:
            candidates = _depth_first(queue.waiting, plan) if self.depth_first else _longest(queue.waiting, plan)
        else:
            candidates = self._order
        self._order = candidates
        for request in candidates:
            if plan.add(request) is not Verdict.OK:
                return
            self._order = None

    def on_arrival(self, request: RequestView) -> None:
        self._order = None

    def on_finish(self, request: RequestView) -> None:
        self._order = None


def _longest(waiting: Iterable[RequestView], plan: StepPlan) -> list[RequestView]:
    return sorted(waiting, key=plan.cached_tokens, reverse=True)  # stable: of equals the first to arrive


def _depth_first(waiting: Iterable[RequestView], plan: StepPlan) -> list[RequestView]:
    paths = {request.id: plan.cached_path(request) for request in waiting}
    weights = Counter(block for path in paths.values() for block in path)
    # Of siblings the heaviest first; and a path after those that extend it: a walk visits the children first.
    return sorted(waiting, key=lambda request: [*((-weights[block], block) for block in paths[request.id]), (1, 0)])
