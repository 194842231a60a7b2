"""How long a scheduler lets one request wait while it serves others: a figure to know, not a rule."""

from __future__ import annotations

from collections.abc import Callable

from framework.conformance.kit.serve import serve
from framework.conformance.kit.traces import Trace, TraceRequest
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS, SCHEDULERS

_NUM_SMALL = 240
_LARGE_S = 0.5
_GAP_S = 0.008  # less than two slots need for one of the small ones: somebody always waits


def describe_starvation(build: Callable[[], Scheduler]) -> str:
    """The longest wait of a large prompt in a stream of small ones that the machine can just not keep up with."""
    mine, num_steps = _wait_steps(build)
    reference, _ = _wait_steps(SCHEDULERS.get("chunked_prefill"))
    return f"a large prompt in a stream of small ones: {mine} of {num_steps} steps (chunked_prefill: {reference})"


def _wait_steps(build: Callable[[], Scheduler]) -> tuple[int, int]:
    small = [_request(number, 6, number * _GAP_S) for number in range(_NUM_SMALL)]
    requests = sorted([*small, _request(_NUM_SMALL, 200, _LARGE_S)], key=lambda request: request.arrival_s)
    large = next(number for number, request in enumerate(requests) if len(request.prompt) == 200)
    trace = Trace(
        block_size=4,
        num_blocks=80,
        max_num_batched_tokens=32,
        max_num_seqs=2,
        prefix_caching=True,
        requests=tuple(requests),
    )
    served = serve(trace, build(), EVICTIONS.get("lru")(), overlap=0)
    return served.waits_steps[large], len(served.steps)


def _request(number: int, num_prompt: int, arrival_s: float) -> TraceRequest:
    prompt = tuple((number * 211 + i) % 49_000 for i in range(num_prompt))  # nothing is shared
    return TraceRequest(arrival_s, prompt, max_tokens=4, eos_after=5)
