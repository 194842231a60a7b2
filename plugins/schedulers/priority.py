"""The most urgent first: by priority, then by deadline, then by arrival."""

from collections.abc import Sequence
from math import floor, inf

from framework.interfaces.scheduler import RequestView
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.ranked import RankedScheduler


@SCHEDULERS.register("priority")
class Priority(RankedScheduler):
    """Lower `request.priority` first, as in vLLM; within one the earliest deadline (EDF: Liu and Layland, "Scheduling
    algorithms for multiprogramming in a hard-real-time environment", JACM 1973), requests without one last.
    The victim at a preemption is the least urgent one that runs.

    Aging cuts time into periods of `1 / aging` seconds and makes a request one priority less urgent for each period
    that it arrives later. So the order of two requests never changes. A request of priority p is overtaken by one
    of priority q <= p only if the latter arrives within (p - q + 1) / aging seconds after it.

    Args:
        aging: priorities per second of waiting; 0 lets urgent requests starve the others.
    """

    def __init__(self, *, aging: float = 0.0) -> None:
        super().__init__()
        if not 0 <= aging < inf:
            raise ValueError(f"scheduler.aging={aging} must be a finite number of priorities per second, at least 0")
        self.aging = aging
        self.choose_victim = self._least_urgent

    def rank(self, request: RequestView) -> tuple[int, float, int]:
        deadline_s = inf if request.deadline_s is None else request.deadline_s
        return request.priority + floor(self.aging * request.arrival_s), deadline_s, request.id

    def _least_urgent(self, running: Sequence[RequestView]) -> RequestView:
        return max(running, key=self.rank)
