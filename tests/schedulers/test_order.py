"""Which request is admitted next: policies with a stated order, on one slot, against that order from scratch."""

from __future__ import annotations

from collections.abc import Callable
from math import floor, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.engine import Engine
from framework.engine.request import Request
from framework.interfaces.predictor import Predictor
from framework.interfaces.scheduler import Scheduler
from plugins.predictors.noisy import Noisy
from plugins.predictors.oracle import Oracle
from plugins.schedulers.highest_response_ratio import HighestResponseRatio
from plugins.schedulers.priority import Priority
from plugins.schedulers.shortest_first import ShortestFirst
from tests.schedulers.drive import Job, serve

Key = Callable[[Request, float], tuple[float, ...]]


def size(request: Request, now_s: float) -> tuple[float, ...]:
    return request.num_pending, request.id


def total(request: Request, now_s: float) -> tuple[float, ...]:
    return request.num_pending + request.params.max_tokens, request.id


def aged_size(request: Request, now_s: float) -> tuple[float, ...]:
    # Rounded: the order of sizes that are equal but for rounding is nobody's promise.
    return round(request.num_pending - 200 * (now_s - request.arrival_s), 6), request.id


def response_ratio(request: Request, now_s: float) -> tuple[float, ...]:
    waited_s = now_s - request.arrival_s
    return -waited_s / request.num_pending, request.id


def response_ratio_of_total(request: Request, now_s: float) -> tuple[float, ...]:
    waited_s = now_s - request.arrival_s
    return -waited_s / (request.num_pending + request.params.max_tokens), request.id


def urgency(request: Request, now_s: float) -> tuple[float, ...]:
    return request.priority, inf if request.deadline_s is None else request.deadline_s, request.id


def aged_urgency(request: Request, now_s: float) -> tuple[float, ...]:
    periods = floor(50 * now_s) - floor(50 * request.arrival_s)
    return (request.priority - periods, *urgency(request, now_s)[1:])


def none() -> None:
    """The predictor of `predictor=none`."""


POLICIES: dict[str, tuple[Callable[[], Scheduler], Key, Callable[[], Predictor | None]]] = {
    "shortest_first": (ShortestFirst, size, none),
    "shortest_first with aging": (lambda: ShortestFirst(aging=200), aged_size, none),
    "shortest_first with an oracle": (ShortestFirst, total, Oracle),
    "shortest_first with an exact predictor": (ShortestFirst, total, lambda: Noisy(error=0)),
    "highest_response_ratio": (HighestResponseRatio, response_ratio, none),
    "highest_response_ratio with an oracle": (HighestResponseRatio, response_ratio_of_total, Oracle),
    "priority": (Priority, urgency, Oracle),
    "priority with aging": (lambda: Priority(aging=50), aged_urgency, none),
}

jobs = st.lists(
    st.builds(
        Job,
        prompt_tokens=st.integers(1, 40),
        max_tokens=st.integers(1, 8),
        arrival_s=st.sampled_from([0.0, 0.0, 0.011, 0.03, 0.037, 0.06]),
        priority=st.integers(-1, 2),
        deadline_s=st.sampled_from([None, 0.1, 0.2, 0.3]),
    ),
    min_size=1,
    max_size=12,
).map(lambda jobs: sorted(jobs, key=lambda job: job.arrival_s))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25, deadline=None)
@given(jobs=jobs)
def test_the_first_of_the_order_is_admitted(policy: str, jobs: list[Job]) -> None:
    build, key, predictor = POLICIES[policy]
    keys: dict[int, tuple[float, ...]] = {}

    def note(engine: Engine) -> None:
        keys.clear()
        keys.update({request.id: key(request, engine.clock.now_s()) for request in engine.queue.waiting})

    def check(engine: Engine, admitted: list[int]) -> None:
        assert admitted in ([], [min(keys, key=keys.__getitem__)] if keys else [])

    serve(build(), jobs, before_step=note, after_step=check, predictor=predictor(), max_num_seqs=1)


@pytest.mark.parametrize("policy", [ShortestFirst, HighestResponseRatio])
def test_a_noisy_predictor_is_a_function_of_its_seed(policy: type[Scheduler]) -> None:
    jobs = [Job(max_tokens=4 + number) for number in range(12)]

    def order(**parameters: object) -> list[int]:
        return serve(policy(), jobs, predictor=Noisy(**parameters), max_num_seqs=1).admitted  # type: ignore[arg-type]

    assert order(error=1.0, seed=1) == order(error=1.0, seed=1)
    assert order(error=1.0, seed=1) != order(error=1.0, seed=2)
    assert order(error=0.0, seed=1) == sorted(range(12))


def short_stream(seconds: float) -> list[Job]:
    """A long prompt, and short ones that arrive faster than one slot serves them."""
    return [Job(prompt_tokens=60, max_tokens=2, priority=3)] + [
        Job(prompt_tokens=2, max_tokens=2, arrival_s=0.004 * number) for number in range(int(seconds / 0.004))
    ]


@pytest.mark.parametrize(
    ("policy", "aging", "bound_s"), [(ShortestFirst, 400, 60 / 400), (Priority, 20, (3 - 0 + 1) / 20)]
)
def test_aging_bounds_who_may_overtake(policy: Callable[..., Scheduler], aging: float, bound_s: float) -> None:
    jobs = short_stream(0.8)
    jobs.insert(0, Job(prompt_tokens=2, max_tokens=2))  # holds the slot when the long one arrives
    starved = serve(policy(), jobs, max_num_seqs=1)
    assert starved.admitted[-1] == 1
    aged = serve(policy(aging=aging), jobs, max_num_seqs=1)
    overtaken_by = [jobs[number].arrival_s for number in aged.admitted[: aged.admitted.index(1)]]
    assert bound_s / 2 < max(overtaken_by) <= bound_s


def test_highest_response_ratio_does_not_starve() -> None:
    jobs = short_stream(0.8)
    served = serve(HighestResponseRatio(), jobs, max_num_seqs=1)
    assert served.admitted.index(0) < len(jobs) - 1


def test_the_most_urgent_is_never_the_victim() -> None:
    arrivals = enumerate((2, 3, 1, 0))  # the least urgent is neither the youngest nor the oldest
    jobs = [Job(prompt_tokens=8, max_tokens=40, priority=level, arrival_s=0.01 * n) for n, level in arrivals]
    served = serve(Priority(), jobs, num_blocks=24)
    preemptions = [served.records[number].num_preemptions for number in range(4)]
    assert preemptions[3] == 0
    assert preemptions[1] > 0
    ends_s = [served.records[number].finish_s for number in (3, 0, 1)]
    assert ends_s == sorted(ends_s)
