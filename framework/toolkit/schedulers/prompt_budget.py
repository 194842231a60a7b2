"""How many prompt tokens may join the decode rows of one step, so that it still ends in time, by forecast."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from framework.interfaces.scheduler import Queue, RequestView, StepPlan
from framework.toolkit.step_shape import shape_of


def prompt_budget(
    queue: Queue, plan: StepPlan, decoding: Sequence[RequestView], limit_s: float, *, unknown: int
) -> int:
    """The most prompt tokens in a step of `limit_s` seconds with the rows of `decoding`, by bisection over
    `queue.forecast`; at least 1, so that prompts end. They are taken for those of the first request with a prompt.

    Args:
        unknown: the answer while there is no forecast.
    """
    prompts = [request for request in (*queue.running, *queue.waiting) if request.num_pending > 1][:1]
    if not decoding or not prompts or limit_s == inf:
        return plan.tokens_left
    rows = [(request, 1) for request in decoding]
    low, high = 1, max(1, plan.tokens_left - len(decoding))
    while low < high:
        middle = (low + high + 1) // 2
        seconds = queue.forecast(shape_of([*rows, (prompts[0], middle)]))
        if seconds is None:
            return min(unknown, high)
        low, high = (middle, high) if seconds <= limit_s else (low, middle - 1)
    return low
