"""A request is admitted if the memory will suffice at every later moment, as far as past lengths tell."""

import random

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.victim import continue_running, victim_chooser


@SCHEDULERS.register("past_future")
class PastFuture(Scheduler):
    """Gong et al., "Past-Future Scheduler for LLM Serving under SLA Guarantees" (ASPLOS'25, arXiv 2507.10150). Each
    running request draws a length from the distribution of past lengths, given the tokens that it has. Memory is
    largest right before one of them ends; the next request is admitted if the largest sum fits into the cache.

    Differences: the paper keeps one window of past lengths, which is `predictor=histogram predictor.by=all`; any
    predictor may stand in. Blocks that requests share count for each of them, which admits fewer.

    Args:
        reserved: share of the cache that the plan leaves free, for lengths that were drawn too short.
        draws: how many times lengths are drawn for a decision; the largest sum counts.
        seed: the seed of the draws.
    """

    needs_prediction = True

    def __init__(self, *, reserved: float = 0.05, draws: int = 1, seed: int = 0) -> None:
        if not 0 <= reserved < 1:
            raise ValueError(f"scheduler.reserved={reserved} must be at least 0 and below 1")
        if draws < 1:
            raise ValueError(f"scheduler.draws={draws} must be at least 1")
        self.reserved, self.draws = reserved, draws
        self.choose_victim = victim_chooser("youngest")
        self._random = random.Random(seed)

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if continue_running(queue, plan, self.choose_victim) or not (plan.slots_left and plan.tokens_left):
            return
        room_tokens = plan.num_blocks * plan.block_size * (1 - self.reserved)
        batches = None
        while queue.waiting:
            request = queue.waiting[0]
            batches = batches or [[self._draw(one) for one in queue.running] for _ in range(self.draws)]
            for batch in batches:
                batch.append(self._draw(request))
            if queue.running and max(map(peak_tokens, batches)) > room_tokens:
                return
            if plan.add(request) is not Verdict.OK:
                return

    def _draw(self, request: RequestView) -> tuple[float, int]:
        """Tokens that it will still produce, and those that it has."""
        assert request.predicted is not None
        share = min(max(self._random.random(), 1e-6), 1 - 1e-6)
        length = min(request.predicted.quantile(share), request.max_total_tokens - request.num_prompt)
        return max(1.0, length - request.num_output), request.num_tokens


def peak_tokens(batch: list[tuple[float, int]]) -> float:
    """The most tokens that the requests of `batch`, (tokens to come, tokens so far) of each, will hold at one time."""
    most = held = 0.0
    for number, (left, tokens) in enumerate(sorted(batch, reverse=True), 1):  # those that end later are all still there
        held += tokens
        most = max(most, held + number * left)
    return most
