"""Anything that the interface allows, in random order, to test the engine and eviction policies with."""

import random
from collections.abc import Sequence

from framework.interfaces.scheduler import Queue, RequestView, Scheduler, StepPlan, Verdict
from framework.registry import SCHEDULERS

_MAX_LOST = 20
"""How often one request is preempted by lot. Without a limit, long prompts and small steps might allow no progress."""


@SCHEDULERS.register("random")
class RandomOrder(Scheduler):
    """Random order, chunk sizes, pauses and preemptions; deterministic for a seed. When luck plans nothing, the oldest
    request runs, if need be alone, so that every request ends, unless probabilities are extreme (.99 and .9).

    Args:
        seed: the seed of every choice.
        preempt_probability: the probability that a step preempts one request for no reason.
        pause_probability: the probability that a step leaves out a running request.
    """

    def __init__(self, *, seed: int = 0, preempt_probability: float = 0.1, pause_probability: float = 0.1) -> None:
        for name, value in (("preempt_probability", preempt_probability), ("pause_probability", pause_probability)):
            if not 0 <= value < 1:
                raise ValueError(f"scheduler.{name}={value} must be at least 0 and below 1")
        self.preempt_probability, self.pause_probability = preempt_probability, pause_probability
        self._random = random.Random(seed)

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        draw = self._random
        planned = False
        chunks = draw.choices((None, 1, 3, 17), k=len(queue.running))
        for request, max_tokens in zip(self._shuffled(queue.running), chunks, strict=True):
            if draw.random() < self.pause_probability:
                continue
            while (verdict := plan.add(request, max_tokens)) is Verdict.NO_BLOCKS:
                plan.preempt(self._loser(queue))
            planned |= verdict is Verdict.OK
        for request in self._shuffled(queue.waiting if plan.slots_left and plan.tokens_left else ()):
            planned |= plan.add(request, draw.choice((None, 2, 9))) is Verdict.OK
        if len(queue.running) > 1 and draw.random() < self.preempt_probability:
            plan.preempt(self._loser(queue))  # maybe one that this very plan holds
        if not planned:
            self._run_oldest(queue, plan)

    def _loser(self, queue: Queue) -> RequestView:
        """The victim: drawn by lot until every request has lost often enough, then the youngest, for progress."""
        players = [request for request in queue.running if request.num_preemptions < _MAX_LOST]
        if not players:
            return max(queue.running, key=lambda request: request.id)
        return self._random.choice(players)

    def _shuffled(self, requests: Sequence[RequestView]) -> list[RequestView]:
        places = [self._random.random() for _ in requests]  # a fraction of the time of random.shuffle
        return [requests[index] for index in sorted(range(len(places)), key=places.__getitem__)]

    def _run_oldest(self, queue: Queue, plan: StepPlan) -> None:
        if not queue.running:
            return
        oldest = min(queue.running, key=lambda request: request.id)
        if plan.add(oldest) is Verdict.NO_BLOCKS:
            for request in tuple(queue.running):
                if request is not oldest:
                    plan.preempt(request)
            plan.add(oldest)
