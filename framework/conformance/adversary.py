"""A scheduler that does anything the interface allows: random order, random chunks, random preemption."""

from __future__ import annotations

import random

from framework.interfaces.scheduler import Queue, Scheduler, StepPlan, Verdict


class Adversary(Scheduler):
    """Deterministic for a seed. Falls back to running the oldest request alone, so that every request ends.

    Not a plugin: it is what the engine and eviction policies are tried with.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        draw = self._random
        added = False
        for request in draw.sample(list(queue.running), len(queue.running)):
            if draw.random() < 0.1:
                continue
            while request.running and (verdict := plan.add(request, draw.choice([None, 1, 3, 17]))):
                if verdict is not Verdict.NO_BLOCKS:
                    added |= verdict is Verdict.OK
                    break
                plan.preempt(draw.choice(list(queue.running)))
        for request in draw.sample(list(queue.waiting), len(queue.waiting)):
            added |= plan.add(request, draw.choice([None, 2, 9])) is Verdict.OK
        if len(queue.running) > 1 and draw.random() < 0.1:
            plan.preempt(draw.choice(list(queue.running)))  # maybe one that this very plan holds
        if not added:
            self._run_oldest(queue, plan)

    def _run_oldest(self, queue: Queue, plan: StepPlan) -> None:
        if not queue.running:
            return
        oldest = min(queue.running, key=lambda request: request.id)
        if plan.add(oldest) is Verdict.NO_BLOCKS:
            for request in list(queue.running):
                if request is not oldest:
                    plan.preempt(request)
            plan.add(oldest)
