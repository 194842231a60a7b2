"""How long a scheduler lets requests wait while it serves others. For a large one it is a figure to know; among clients
that differ in their names only it is a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from statistics import mean

from framework.conformance.kit.finding import Violation
from framework.conformance.kit.serve import serve
from framework.conformance.kit.traces import Trace, TraceRequest
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS, SCHEDULERS

EQUAL_CLIENTS = "clients that ask for the same wait alike"

_CLIENTS = ("b", "", "a", "c")
_NUM_OF_CLIENT = 30
_MOST_TIMES, _MOST_STEPS_MORE = 2.0, 4.0
"""Between the mean wait of one client and that of all; lots, drawn by `scheduler=random`, come to 1.3 times."""
_NUM_SMALL = 240
_LARGE_S = 0.5
_GAP_S = 0.008  # less than two slots need for a small request, so that one always waits


def describe_starvation(build: Callable[[], Scheduler]) -> str:
    """The longest wait of a large prompt in a stream of small ones that the machine can just not keep up with."""
    mine, num_steps = _wait_steps(build)
    return f"a large prompt in a stream of small ones: {mine} of {num_steps} steps (chunked_prefill: {_reference()})"


@cache
def _reference() -> int:
    """The same of the default scheduler."""
    return _wait_steps(SCHEDULERS.get("chunked_prefill"))[0]


def equal_clients(build: Callable[[], Scheduler]) -> str:
    """Serve clients that send equal requests in turn, half as many again as the machine can serve in that time.

    Raises:
        Violation: one of them waits much longer than the others.
    """
    requests = [
        _request(number, 6, number * _GAP_S / 2)._replace(client=_CLIENTS[number % len(_CLIENTS)])
        for number in range(len(_CLIENTS) * _NUM_OF_CLIENT)
    ]
    served = serve(_trace(requests), build(), EVICTIONS.get("lru")(), overlap=0)
    waits = {client: mean(served.waits_steps[first :: len(_CLIENTS)]) for first, client in enumerate(_CLIENTS)}
    typical = mean(waits.values())
    others = ", ".join(f"{client!r}: {steps:.1f}" for client, steps in waits.items())
    for client, steps in waits.items():
        if max(steps, typical) > _MOST_TIMES * min(steps, typical) + _MOST_STEPS_MORE:
            raise Violation(
                EQUAL_CLIENTS,
                f"requests of client {client!r} wait {steps:.1f} steps on average (all: {others}), although each "
                f"client sends one of 6 tokens in turn, and they differ in nothing but the client's name",
            )
    return f"steps that a request waits, on average, by client: {others}"


def _wait_steps(build: Callable[[], Scheduler]) -> tuple[int, int]:
    small = [_request(number, 6, number * _GAP_S) for number in range(_NUM_SMALL)]
    requests = sorted([*small, _request(_NUM_SMALL, 200, _LARGE_S)], key=lambda request: request.arrival_s)
    large = next(number for number, request in enumerate(requests) if len(request.prompt) == 200)
    served = serve(_trace(requests), build(), EVICTIONS.get("lru")(), overlap=0)
    return served.waits_steps[large], len(served.steps)


def _trace(requests: Sequence[TraceRequest]) -> Trace:
    return Trace(
        block_size=4,
        num_blocks=80,
        max_num_batched_tokens=32,
        max_num_seqs=2,
        prefix_caching=True,
        requests=tuple(requests),
    )


def _request(number: int, num_prompt: int, arrival_s: float) -> TraceRequest:
    prompt = tuple((number * 211 + i) % 49_000 for i in range(num_prompt))  # nothing is shared
    return TraceRequest(arrival_s, prompt, max_tokens=4, eos_after=5)
