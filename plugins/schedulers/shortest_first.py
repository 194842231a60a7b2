"""Shortest job first: the lowest mean waiting time when sizes differ a lot, at the price of the large ones."""

from framework.interfaces.scheduler import RequestView
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.output_length import remaining_tokens
from framework.toolkit.schedulers.ranked import RankedScheduler
from framework.toolkit.schedulers.victim import Victim


@SCHEDULERS.register("shortest_first")
class ShortestFirst(RankedScheduler):
    """The fewest tokens still to compute first: those of the prompt, and those of the answer that a predictor expects
    at the request's arrival. With `predictor=none` only the prompt counts, and with `predictor=oracle` this is shortest
    job first proper.

    Aging subtracts `aging` tokens from a size for each second of waiting. All waiting requests age alike, so the order
    of two never changes. No request that arrives more than size / aging seconds after another one overtakes it.

    Args:
        aging: tokens per second of waiting; 0 lets a stream of small requests starve a large one.
        victim: the request that is preempted when blocks run out.
    """

    def __init__(self, *, aging: float = 0.0, victim: Victim = "youngest") -> None:
        super().__init__(victim=victim)
        if not 0 <= aging < float("inf"):
            raise ValueError(f"scheduler.aging={aging} must be a finite number of tokens per second, at least 0")
        self.aging = aging

    def rank(self, request: RequestView) -> float:
        size = request.num_pending + remaining_tokens(request)
        return size + self.aging * request.arrival_s
