"""Shortest job first: the lowest mean waiting time when sizes differ a lot, at the price of the large ones."""

from framework.interfaces.scheduler import RequestView
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.output_length import OutputLength, Predictor
from framework.toolkit.schedulers.ranked import RankedScheduler
from framework.toolkit.schedulers.victim import Victim


@SCHEDULERS.register("shortest_first")
class ShortestFirst(RankedScheduler):
    """The fewest tokens still to compute first. Knowing output lengths makes it shortest job first proper (as in
    "Efficient LLM Scheduling by Learning to Rank", NeurIPS'24, there with a learned ranking).

    Aging subtracts `aging` tokens from a size for each second of waiting. All waiting requests age alike, so the order
    of two never changes. No request that arrives more than size / aging seconds after another one overtakes it.

    Args:
        predictor: output length: `none` ranks by pending prompt tokens alone; `oracle` adds the true length, which no
            engine in service knows; `noisy` multiplies that by a log-normal error. The record names it as an oracle.
        error: standard deviation of the logarithm of the `noisy` predictor's error.
        seed: the seed of the `noisy` predictor.
        aging: tokens per second of waiting; 0 lets a stream of small requests starve a large one.
        victim: the request that is preempted when blocks run out.
    """

    def __init__(
        self,
        *,
        predictor: Predictor = "none",
        error: float = 0.5,
        seed: int = 0,
        aging: float = 0.0,
        victim: Victim = "youngest",
    ) -> None:
        super().__init__(victim=victim)
        if not 0 <= aging < float("inf"):
            raise ValueError(f"scheduler.aging={aging} must be a finite number of tokens per second, at least 0")
        self.output_length = OutputLength(predictor, error=error, seed=seed)
        self.oracle = self.output_length.asks
        self.aging = aging

    def on_true_length(self, request: RequestView, num_output: int) -> None:
        self.output_length.learn(request, num_output)

    def on_finish(self, request: RequestView) -> None:
        super().on_finish(request)
        self.output_length.forget(request)

    def rank(self, request: RequestView) -> float:
        size = request.num_pending + self.output_length.remaining(request)
        return size + self.aging * request.arrival_s
