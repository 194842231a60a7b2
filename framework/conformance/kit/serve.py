"""Serves a trace to its end with every check switched on, and says which rule broke."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

from framework.conformance.kit.finding import Violation
from framework.conformance.kit.invariants import check_invariants
from framework.conformance.kit.shadow import EOS, ShadowExecutor, learning_predictor, make_engine, token_at
from framework.conformance.kit.time_limit import TimeLimitError, time_limit
from framework.conformance.kit.traces import Trace, TraceRequest
from framework.engine.engine import Engine
from framework.engine.fleet import Fleet
from framework.engine.output import RequestOutput
from framework.interfaces.errors import PluginError, StuckError
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Scheduler
from framework.workloads.future import announce

ENDS = "every request ends, in any order of arrival"
RAISES = "raises nothing"
CALLS = "calls the plan as its interface allows"
BUDGETS = "token and request budgets hold"
TOKENS = "every request gets its tokens"
MEMORY = "memory stays sound"

_MAX_STEPS = 50_000
_LIMIT_S = 4.0
_LAST_STEPS = 8


@dataclass(slots=True)
class Served:
    """The result of serving a trace."""

    outputs: dict[int, RequestOutput] = field(default_factory=dict)
    steps: list[dict[int, int]] = field(default_factory=list)
    """For each step, the tokens of each request in it."""
    waits_steps: list[int] = field(default_factory=list)
    """For each request, the largest number of steps in a row that ran without it while it could have run."""


def serve(trace: Trace, scheduler: Scheduler, eviction: EvictionPolicy, *, overlap: int) -> Served:
    """Run `trace` on a shadow KV memory.

    Raises:
        Violation: the first rule that breaks, with the trace and its last steps.
    """
    engine = make_engine(
        scheduler,
        eviction,
        num_blocks=trace.num_blocks,
        block_size=trace.block_size,
        max_num_seqs=trace.max_num_seqs,
        max_num_batched_tokens=trace.max_num_batched_tokens,
        overlap=overlap,
        prefix_caching=trace.prefix_caching,
        eos_after=trace.eos_after,
        voices=trace.voices,
        predictor=learning_predictor(),
    )
    assert isinstance(engine.executor, ShadowExecutor)
    announce(engine, (RequestSpec(prompt_token_ids=request.prompt) for request in trace.requests))
    served = Served(steps=engine.executor.steps)
    try:
        with time_limit(_LIMIT_S):
            _run(engine, trace, served)
            _check_tokens(trace, served)
            _check_end(engine, trace)
    except Exception as error:
        broken = _violation(error, engine)
        raise Violation(broken.rule, f"{broken.message}\n{_describe(trace, served, overlap)}") from error
    return served


def _run(engine: Engine, trace: Trace, served: Served) -> None:
    arrivals = list(enumerate(trace.requests))
    waits = [0] * len(trace.requests)
    served.waits_steps = waits[:]
    for _ in range(_MAX_STEPS):
        while arrivals and arrivals[0][1].arrival_s <= engine.clock.now_s():
            number, one = arrivals.pop(0)
            request_id = arrive(engine, one)
            assert request_id == number
        if not engine.has_work:
            if not arrivals:
                return
            engine.clock.sleep_until(arrivals[0][1].arrival_s)
            continue
        num_steps = len(served.steps)
        for output in engine.step():
            served.outputs[output.request_id] = output
        for step in served.steps[num_steps:]:
            _check_budgets(step, trace)
            _count_waits(engine, step, waits)
        served.waits_steps = list(map(max, served.waits_steps, waits))
        check_invariants(engine)
    raise Violation(ENDS, f"{len(served.outputs)} of {len(trace.requests)} requests ended in {_MAX_STEPS} steps")


def arrive(engine: Engine | Fleet, one: TraceRequest) -> int:
    """Add `one` and return its id."""
    return engine.add_request(
        RequestSpec(
            prompt_token_ids=one.prompt,
            params=SamplingParams(max_tokens=one.max_tokens),
            arrival_s=one.arrival_s,
            priority=one.priority,
            client=one.client,
            deadline_s=one.deadline_s,
        )
    )


def _check_budgets(step: dict[int, int], trace: Trace) -> None:
    num_tokens, num_rows = sum(step.values()), len(step)
    if num_tokens > trace.max_num_batched_tokens or num_rows > trace.max_num_seqs:
        raise Violation(BUDGETS, f"a step of {num_tokens} tokens and {num_rows} requests")


def _count_waits(engine: Engine, step: dict[int, int], waits: list[int]) -> None:
    for request in (*engine.queue.waiting, *engine.queue.running):
        waits[request.id] = 0 if request.id in step or request.num_inflight else waits[request.id] + 1


def _check_tokens(trace: Trace, served: Served) -> None:
    capacity = trace.num_blocks * trace.block_size
    if len(served.outputs) != len(trace.requests):
        raise Violation(ENDS, f"{len(served.outputs)} of {len(trace.requests)} requests ended")
    for number, request in enumerate(trace.requests):
        num_prompt = len(request.prompt)
        limit = min(request.max_tokens, capacity - num_prompt)
        expected = [token_at(trace.voices[number], num_prompt + k) for k in range(limit)]
        stops = request.eos_after <= limit
        if stops:
            expected[request.eos_after - 1 :] = [EOS]
        output = served.outputs[number]
        if output.token_ids != expected or output.finish_reason != ("stop" if stops else "length"):
            raise Violation(TOKENS, f"request {number} got {output.token_ids} ({output.finish_reason}), not {expected}")


def _check_end(engine: Engine, trace: Trace) -> None:
    if engine.cache.num_free != trace.num_blocks:
        raise Violation(MEMORY, f"{engine.cache.num_free} of {trace.num_blocks} blocks are free at the end")
    engine.reset()
    check_invariants(engine)
    if len(engine.cache._free) != trace.num_blocks:
        raise Violation(MEMORY, f"{len(engine.cache._free)} of {trace.num_blocks} blocks are free after a reset")


def _violation(error: Exception, engine: Engine) -> Violation:
    """Which rule `error` is about. The engine wraps what comes out of a plugin into an error that names it."""
    cause = error.__cause__ if isinstance(error, PluginError) and isinstance(error.__cause__, Exception) else error
    if isinstance(cause, Violation):
        return cause
    frames = traceback.extract_tb(cause.__traceback__)
    if isinstance(cause, TimeLimitError):
        where = next((f for f in reversed(frames) if not f.filename.endswith("time_limit.py")), frames[-1])
        return Violation(ENDS, f"{cause}; it was in {_place(where)}" if cause is error else str(error))
    if isinstance(cause, PluginError):
        return Violation(ENDS if isinstance(cause, StuckError) else CALLS, str(error))
    if isinstance(cause, AssertionError) and "/framework/" in frames[-1].filename:
        return Violation(MEMORY, f"{cause} ({_place(frames[-1])})")
    if cause is not error:
        return Violation(RAISES, str(error))
    text = "".join(traceback.format_exception_only(error)).strip()
    return Violation(RAISES, f"{text} ({_place(frames[-1])})")


def _place(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno}, {frame.line}"


def _describe(trace: Trace, served: Served, overlap: int) -> str:
    lines = [trace.describe(), f"engine.overlap={overlap}; {len(served.steps)} steps ran"]
    first = max(0, len(served.steps) - _LAST_STEPS)
    for number, step in enumerate(served.steps[first:], first):
        lines.append(f"step {number}: " + ", ".join(f"{num} of request {request}" for request, num in step.items()))
    return "\n".join(lines)
