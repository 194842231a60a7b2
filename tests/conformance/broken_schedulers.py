"""Schedulers that are right but for one thing."""

from __future__ import annotations

import random
from typing import Any

from framework.interfaces import Queue, Scheduler, StepPlan, Verdict


class Plain(Scheduler):
    """First come first served, as the template of `framework new`."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = False
        for request in tuple(queue.running):
            while request.running and plan.add(request) is Verdict.NO_BLOCKS:
                plan.preempt(queue.running[-1])
                preempted = True
        while queue.waiting and not preempted and plan.add(queue.waiting[0]) is Verdict.OK:
            pass


class NeverAdmitsLongPrompts(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if queue.waiting and not queue.running and queue.waiting[0].num_prompt > 20:
            return
        super().schedule(queue, plan)


class WaitsForRoomForEver(Scheduler):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        for request in (*queue.running, *queue.waiting):
            while plan.add(request) in (Verdict.NO_BLOCKS, Verdict.NO_SLOTS):
                pass


class PreemptsInTurn(Scheduler):
    """Waiting requests take the place of running ones before those got anywhere."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        for request in tuple(queue.running) if queue.waiting else ():
            plan.preempt(request)
        for request in (*queue.running, *list(queue.waiting)[-1:]):
            plan.add(request, 1)


class AddsAndPreempts(Scheduler):
    """An empty plan for ever, although it calls `add` and `preempt` each time."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        request = (queue.running or queue.waiting)[0]
        plan.add(request)
        plan.preempt(request)


class DividesByZero(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        _ = 1 / (3 - len(queue.waiting))
        super().schedule(queue, plan)


class RaisesOnceThreeHaveEnded(Plain):
    num_ended = 0

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        super().schedule(queue, plan)
        if self.num_ended >= 3:
            raise KeyError("lost")

    def on_finish(self, request: Any) -> None:
        self.num_ended += 1


class PreemptsTheWaiting(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        super().schedule(queue, plan)
        if queue.waiting:
            plan.preempt(queue.waiting[0])


class AddsWhoHasEnded(Plain):
    def __init__(self) -> None:
        self.ended: list[Any] = []

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        super().schedule(queue, plan)
        for request in self.ended:
            plan.add(request)

    def on_finish(self, request: Any) -> None:
        self.ended.append(request)


class AddsZeroTokens(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        for request in tuple(queue.running):
            plan.add(request, 0)
        super().schedule(queue, plan)


class AddsTwice(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        super().schedule(queue, plan)
        for request in tuple(queue.running):
            plan.add(request)


class RaisesItsBudget(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        plan._budget_tokens = plan.tokens_left = 1000  # type: ignore[attr-defined, misc]
        super().schedule(queue, plan)


class WritesToRequests(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        super().schedule(queue, plan)
        for request in queue.running:
            if request.num_output == 2:
                request.num_computed = 1  # type: ignore[misc]


class UsesGlobalRandomness(Plain):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        super().schedule(queue, plan)
        if len(queue.running) > 1 and random.random() < 0.3:
            plan.preempt(queue.running[-1])
