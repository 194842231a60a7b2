"""The checks of routers: their choices in simulated fleets, and the cost of a choice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.search import search
from framework.conformance.kit.serve_fleet import serve_fleet
from framework.conformance.kit.traces import Trace, TraceRequest, simpler_traces, traces
from framework.conformance.kit.watched_router import RANGE, READS
from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.interfaces.sampling_params import SamplingParams

SAME_CHOICES = "the same arrivals give the same choices"
REACHES = "every replica gets requests when all have more than they can serve"
SPREAD = "how evenly it spreads requests"
COST = "what a decision costs"

_NUM_REPLICAS, _NUM_REQUESTS, _PREFIX = 4, 200, tuple(range(40))
_MANY_REPLICAS, _PATH_BLOCKS, _BLOCK_SIZE, _NUM_DECISIONS, _MAX_S = 16, 512, 4, 500, 1.0

Example = tuple[Trace, int]


def checks(choice: Mapping[Any, Any], build: Callable[[], Router], budget: Budget) -> list[Check]:
    """The checks of the router that `build` makes anew each time."""
    return [
        Check(RANGE, lambda: _in_fleets(build, budget)),
        Check(SAME_CHOICES, lambda: _same_choices(build, budget)),
        Check(REACHES, lambda: _reaches(build)),
        Check(SPREAD, lambda: _spread(build)),
        Check(COST, lambda: _cost(build)),
    ]


def _in_fleets(build: Callable[[], Router], budget: Budget) -> str:
    """`serve_fleet` looks at every choice."""

    def attempt(example: Example) -> None:
        serve_fleet(*example, build())

    return f"{_search(attempt, budget)} random traces over 2 to 6 replicas; {READS}"


def _same_choices(build: Callable[[], Router], budget: Budget) -> str:
    def attempt(example: Example) -> None:
        trace, num_replicas = example
        try:
            one, other = (serve_fleet(trace, num_replicas, build()) for _ in range(2))
        except Violation:
            return  # another check reports it
        if one != other:
            at = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
            went = f"request {at} went to replica {one[at]} at first and to {other[at]} the second time"
            raise Violation(SAME_CHOICES, f"{went}\n{num_replicas} replicas, each with a\n{trace.describe()}")

    return f"{_search(attempt, budget)} random traces, each twice"


def _search(attempt: Callable[[Example], None], budget: Budget) -> int:
    examples = st.tuples(traces(), st.integers(2, 6))
    result = search(
        examples, attempt, budget, lambda example: ((one, example[1]) for one in simpler_traces(example[0]))
    )
    if result.violation is not None:
        raise result.violation
    return result.num_examples


def _reaches(build: Callable[[], Router]) -> str:
    sent = _sent(build, ())
    if idle := [index for index in range(_NUM_REPLICAS) if not sent[index]]:
        shares = ", ".join(f"{sent[index]} to replica {index}" for index in range(_NUM_REPLICAS))
        raise Violation(
            REACHES, f"replica {idle[0]} got none of {_NUM_REQUESTS} unrelated requests that arrived at once: {shares}"
        )
    return f"{_NUM_REQUESTS} unrelated requests at once over {_NUM_REPLICAS} replicas"


def _spread(build: Callable[[], Router]) -> str:
    found = []
    for prefix, name in (((), "unrelated requests"), (_PREFIX, "requests with one prefix")):
        sent = _sent(build, prefix)
        counts = [sent[index] for index in range(_NUM_REPLICAS)]
        found.append(f"of {_NUM_REQUESTS} {name} a replica gets {min(counts)} to {max(counts)}")
    return f"{'; '.join(found)} ({_NUM_REPLICAS} replicas)"


def _sent(build: Callable[[], Router], prefix: tuple[int, ...]) -> Counter[int | str]:
    """Requests to each replica, of a burst with prompts of like length that begin with `prefix`."""
    requests = tuple(
        TraceRequest(0.0, prefix + tuple((number * 61 + i) % 9973 for i in range(20)), max_tokens=2, eos_after=3)
        for number in range(_NUM_REQUESTS)
    )
    trace = Trace(
        block_size=4,
        num_blocks=120,
        max_num_batched_tokens=256,
        max_num_seqs=8,
        prefix_caching=True,
        requests=requests,
    )
    try:
        return Counter(serve_fleet(trace, _NUM_REPLICAS, build()))
    except Violation as violation:
        raise NotApplicable(f"not measured while a rule above does not hold: {violation.rule}") from violation


def _cost(build: Callable[[], Router]) -> str:
    """In time of this process, with prompts of which half is known."""
    router, half, spent_s, params = build(), _PATH_BLOCKS // 2, 0.0, SamplingParams(max_tokens=1)
    for number in range(_NUM_DECISIONS):
        request = Arrival(id=number, arrival_s=number * 1e-3, num_prompt=_PATH_BLOCKS * _BLOCK_SIZE, params=params)
        path = [*range(half), *range((number + 1) * half, (number + 2) * half)]
        views = tuple(
            ReplicaView(index=i, num_requests=(i + number) % 5, num_prompt_tokens=1000, num_blocks=8 * _PATH_BLOCKS)
            for i in range(_MANY_REPLICAS)
        )
        started_s = time.process_time()
        router.route(request, path, views)
        spent_s += time.process_time() - started_s
        if spent_s > _MAX_S:
            break
    mean_us = spent_s * 1e6 / (number + 1)
    return f"{mean_us:.0f} us with {_MANY_REPLICAS} replicas and prompts of {_PATH_BLOCKS} blocks"
