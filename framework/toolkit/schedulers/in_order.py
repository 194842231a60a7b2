"""One order of all live requests, by which a step takes from the last what the first needs."""

from __future__ import annotations

from collections.abc import Sequence

from framework.interfaces.scheduler import Queue, RequestView, StepPlan, Verdict


def run_in_order(order: Sequence[RequestView], queue: Queue, plan: StepPlan) -> list[RequestView]:
    """Plan the requests of `order`, which holds all that run and wait, one after the other, until the tokens are spent.
    One that lacks a slot or blocks takes those of the last running requests that come after it. Where none does, no
    request after it is admitted.

    Returns the requests of the plan. The first request of the order must stay the first until it has made progress.
    """
    place = {request.id: number for number, request in enumerate(order)}
    victims = sorted(queue.running, key=lambda request: place[request.id])
    planned: list[RequestView] = []
    for number, request in enumerate(order):
        verdict = plan.add(request)
        while verdict in (Verdict.NO_BLOCKS, Verdict.NO_SLOTS) and victims and place[victims[-1].id] > number:
            plan.preempt(victims.pop())
            verdict = plan.add(request)
        if verdict is Verdict.OK:
            planned.append(request)
        elif verdict is not Verdict.NOT_READY:
            break
    return planned
