"""Whether a scheduler acts on an output length before anybody can know it."""

from __future__ import annotations

from framework.conformance.kit.finding import Violation
from framework.conformance.kit.shadow import ShadowExecutor, learning_predictor, make_engine
from framework.conformance.kit.time_limit import time_limit
from framework.conformance.kit.traces import Trace, TraceRequest
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS

SECRET = "true output lengths are unknown until they are reached"

BURST = Trace(
    block_size=4,
    num_blocks=80,
    max_num_batched_tokens=32,
    max_num_seqs=2,
    prefix_caching=True,
    requests=tuple(
        TraceRequest(0.0, tuple((number * 211 + i) % 49_000 for i in range(6)), max_tokens=length, eos_after=length + 1)
        for number, length in enumerate((9, 4, 17, 6, 12, 3, 15, 8, 5, 14, 7, 11))
    ),
)
"""Requests alike but for their lengths, which arrive at once: the order in which they run is a scheduler's choice."""
_MAX_STEPS = 3000
_LIMIT_S = 4.0


def compare_lengths(trace: Trace, secret: int, longer: int, one: Scheduler, other: Scheduler, *, overlap: int) -> None:
    """Serve `trace` twice, alike but for the true length of request `secret`, which is `longer` tokens more the second
    time. Until the last token of the shorter one is in flight nothing tells the two apart, so the plans must be alike.

    Raises:
        Violation: they are not.
    """
    first = _steps(trace, {}, one, overlap)
    second = _steps(trace, {secret: longer}, other, overlap)
    until = max((number for number, step in enumerate(first) if secret in step), default=-1)
    for number, (mine, yours) in enumerate(zip(first[: until + 1], second, strict=False)):
        if mine != yours:
            length = _length(trace, secret)
            raise Violation(
                SECRET,
                f"step {number} ran {mine}, and {yours} where request {secret} was to produce {length + longer} tokens "
                f"and not {length} (request: tokens), which showed in step {until} only; to know lengths, read "
                f"`request.predicted` and run with predictor=oracle\n{trace.describe()}\nengine.overlap={overlap}",
            )


def _length(trace: Trace, number: int) -> int:
    request = trace.requests[number]
    return min(request.max_tokens, request.eos_after)


def _steps(trace: Trace, longer: dict[int, int], scheduler: Scheduler, overlap: int) -> list[dict[int, int]]:
    """The tokens of each request in each step. Every request states the same, the machine's limit."""
    engine = make_engine(
        scheduler,
        EVICTIONS.get("lru")(),
        num_blocks=trace.num_blocks,
        block_size=trace.block_size,
        max_num_seqs=trace.max_num_seqs,
        max_num_batched_tokens=trace.max_num_batched_tokens,
        overlap=overlap,
        prefix_caching=trace.prefix_caching,
        voices=trace.voices,
        predictor=learning_predictor(),
    )
    assert isinstance(engine.executor, ShadowExecutor)
    arrivals = list(enumerate(trace.requests))
    with time_limit(_LIMIT_S):
        for _ in range(_MAX_STEPS):
            while arrivals and arrivals[0][1].arrival_s <= engine.clock.now_s():
                number, request = arrivals.pop(0)
                engine.add_request(
                    RequestSpec(
                        prompt_token_ids=request.prompt,
                        params=SamplingParams(max_tokens=trace.num_blocks * trace.block_size, ignore_eos=True),
                        arrival_s=request.arrival_s,
                        priority=request.priority,
                        client=request.client,
                        deadline_s=request.deadline_s,
                        output_tokens=_length(trace, number) + longer.get(number, 0),
                    )
                )
            if engine.has_work:
                engine.step()
            elif arrivals:
                engine.clock.sleep_until(arrivals[0][1].arrival_s)
            else:
                break
    return engine.executor.steps
