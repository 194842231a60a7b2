"""Whatever fails in whatever step: no request gets a wrong token or is lost, and memory stays sound.

Requests are served on the shadow KV memory, which notices a block that is shared and was never written.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.conformance.kit.invariants import check_invariants
from framework.conformance.kit.serve import arrive
from framework.conformance.kit.shadow import EOS, ShadowExecutor, learning_predictor, make_engine, token_at
from framework.conformance.kit.traces import Trace, TraceRequest, traces
from framework.engine.engine import Engine
from framework.engine.output import RequestOutput
from framework.interfaces.errors import EngineEndedError
from framework.interfaces.executor import StepBatch, StepResult
from framework.interfaces.policies import Policies
from tests.engine.traces import build_eviction, build_scheduler
from tests.faults.inject import fault_at

SCHEDULERS = ("chunked_prefill", "random", "fair", "static_batch", "longest_prefix", "mlfq")
EVICTIONS = ("lru", "s3fifo", "arc")


class FailingExecutor(ShadowExecutor):
    """Raises `error` in the call, counted from 0 over submits and collects, that `fails` names, before or after it."""

    fails = (-1, "")
    num_calls = 0
    error: BaseException = RuntimeError("the device failed")

    def submit(self, batch: StepBatch) -> None:
        self._maybe_fail("before")
        super().submit(batch)
        self._maybe_fail("after")
        self.num_calls += 1

    def collect(self) -> StepResult:
        self._maybe_fail("before")
        result = super().collect()
        self._maybe_fail("after")
        self.num_calls += 1
        return result

    def _maybe_fail(self, when: str) -> None:
        if self.fails == (self.num_calls, when):
            self.fails = (-1, "")
            raise self.error


def build(trace: Trace, scheduler: str, eviction: str, overlap: int, *, renews: bool = True) -> Engine:
    def renew() -> Policies:
        return Policies(build_scheduler(scheduler), build_eviction(eviction), learning_predictor())

    return make_engine(
        build_scheduler(scheduler),
        build_eviction(eviction),
        num_blocks=trace.num_blocks,
        block_size=trace.block_size,
        max_num_seqs=trace.max_num_seqs,
        max_num_batched_tokens=trace.max_num_batched_tokens,
        overlap=overlap,
        prefix_caching=True,
        eos_after=trace.eos_after,
        voices=trace.voices,
        renew=renew if renews else None,
        make_executor=FailingExecutor,
    )


def collect(engine: Engine, outputs: dict[int, RequestOutput], news: Sequence[RequestOutput]) -> None:
    for output in news:
        if output.finished:
            assert output.request_id not in outputs, f"request {output.request_id} ends twice"
            outputs[output.request_id] = output


def finish(engine: Engine, outputs: dict[int, RequestOutput]) -> None:
    for _ in range(20_000):
        if not engine.has_work:
            return
        collect(engine, outputs, engine.step())
        check_invariants(engine)
    raise AssertionError("it never ends")


def check(trace: Trace, added: Sequence[int], outputs: dict[int, RequestOutput], may_fail: set[int]) -> None:
    """`added` requests ended with their tokens; those that `may_fail` can have failed with the first of them."""
    assert set(outputs) == set(added)
    capacity = trace.num_blocks * trace.block_size
    for number, request in enumerate(trace.requests):
        if number not in outputs:
            continue
        limit = min(request.max_tokens, capacity - len(request.prompt))
        expected = [token_at(trace.voices[number], len(request.prompt) + k) for k in range(limit)]
        if request.eos_after <= limit:
            expected[request.eos_after - 1 :] = [EOS]
        output = outputs[number]
        assert output.record is not None
        assert output.record.num_output_tokens == len(output.record.token_times_s) == len(output.token_ids)
        if output.finish_reason == "failed":
            assert number in may_fail, output.error
            assert output.record.error
            assert output.token_ids == expected[: len(output.token_ids)]
        else:
            assert output.token_ids == expected, output.finish_reason


cases = {
    "trace": traces(max_requests=8),
    "scheduler": st.sampled_from(SCHEDULERS),
    "eviction": st.sampled_from(EVICTIONS),
    "overlap": st.sampled_from([0, 1]),
}
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@few
@given(**cases, call=st.integers(0, 40), when=st.sampled_from(["before", "after"]), interrupt=st.booleans())
def test_a_step_that_fails_ends_its_own_requests_only(
    trace: Trace, scheduler: str, eviction: str, overlap: int, call: int, when: str, interrupt: bool
) -> None:
    engine = build(trace, scheduler, eviction, overlap)
    executor = engine.executor
    assert isinstance(executor, FailingExecutor)
    executor.fails = (call, when)
    executor.error = KeyboardInterrupt() if interrupt else RuntimeError("the device failed")
    added = [arrive(engine, request) for request in trace.requests]
    outputs: dict[int, RequestOutput] = {}
    may_fail: set[int] = set()
    while engine.has_work:
        try:
            collect(engine, outputs, engine.step())
        except (RuntimeError, KeyboardInterrupt) as error:
            assert error is executor.error  # noqa: PT017
            failed = [output for output in engine.outbox if output.error is error]
            assert not (interrupt and failed)  # no request fails either if all in the step had ended before
            may_fail = {output.request_id for output in failed}
            check_invariants(engine)
            assert not engine.cache._cached
            finish(engine, outputs)
    check(trace, added, outputs, may_fail)


@few
@given(**cases, num_steps=st.integers(0, 20), line=st.integers(0, 600), interrupt=st.booleans())
def test_a_fault_at_any_line_of_a_step(
    trace: Trace, scheduler: str, eviction: str, overlap: int, num_steps: int, line: int, interrupt: bool
) -> None:
    engine = build(trace, scheduler, eviction, overlap)
    added = [arrive(engine, request) for request in trace.requests]
    outputs: dict[int, RequestOutput] = {}
    for _ in range(num_steps):
        if engine.has_work:
            collect(engine, outputs, engine.step())
    error = KeyboardInterrupt() if interrupt else MemoryError()
    try:
        with fault_at(line, error):
            while engine.has_work:
                engine.advance()
    except BaseException as raised:  # noqa: BLE001
        assert raised is error or raised.__cause__ is error, raised  # noqa: PT017 (a plugin is named)
    check_invariants(engine)
    collect(engine, outputs, list(engine.outbox))
    engine.outbox.clear()
    failed = {number for number, output in outputs.items() if output.error is not None}
    assert len(failed) <= 1 or not interrupt, "an interrupt ends the request that it strikes, at most"
    finish(engine, outputs)
    check(trace, added, outputs, failed)


@few
@given(**cases, line=st.integers(0, 60), num_steps=st.integers(0, 6), aborts=st.booleans())
def test_a_fault_while_a_request_comes_or_goes(
    trace: Trace, scheduler: str, eviction: str, overlap: int, line: int, num_steps: int, aborts: bool
) -> None:
    engine = build(trace, scheduler, eviction, overlap)
    *first, last = trace.requests
    added = [arrive(engine, request) for request in first]
    if aborts:
        added.append(arrive(engine, last))
    outputs: dict[int, RequestOutput] = {}
    for _ in range(num_steps):
        if engine.has_work:
            collect(engine, outputs, engine.step())
    try:
        with fault_at(line, KeyboardInterrupt()):
            if not aborts:
                added.append(arrive(engine, last))
            elif (output := engine.abort(added[-1])) is not None:
                outputs[added[-1]] = output
    except KeyboardInterrupt:
        check_invariants(engine)
        if aborts and (output := engine.abort(added[-1])) is not None:
            outputs[added[-1]] = output
    finish(engine, outputs)
    if aborts:  # its last output may have been on its way to a caller that was interrupted
        outputs.pop(added.pop(), None)
    check(trace, added, outputs, set())


@pytest.mark.parametrize("second", [KeyboardInterrupt(), ValueError("no policy")])
def test_a_second_fault_while_the_first_is_handled(second: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = _trace()
    engine = build(trace, "chunked_prefill", "lru", 1)
    for request in trace.requests:
        arrive(engine, request)
    engine.step()
    executor = engine.executor
    assert isinstance(executor, FailingExecutor)
    executor.fails = (executor.num_calls, "before")
    discard, calls = executor.discard, []

    def fails_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise second
        discard()

    monkeypatch.setattr(executor, "discard", fails_once)
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        engine.step()
    outputs: dict[int, RequestOutput] = {}
    if isinstance(second, KeyboardInterrupt):  # the next call finishes what was interrupted
        finish(engine, outputs)
        assert 0 < sum(output.error is not None for output in outputs.values()) < len(trace.requests)
        return
    collect(engine, outputs, engine.step())
    assert {output.finish_reason for output in outputs.values()} == {"failed"}
    assert len(outputs) == len(trace.requests)
    with pytest.raises(EngineEndedError, match="ended with ValueError: no policy; build another one"):
        engine.step()
    with pytest.raises(EngineEndedError):
        arrive(engine, trace.requests[0])
    assert not engine.has_work


def test_without_new_policies_a_failed_step_ends_the_engine() -> None:
    trace = _trace()
    engine = build(trace, "chunked_prefill", "lru", 1, renews=False)
    for request in trace.requests:
        arrive(engine, request)
    assert isinstance(engine.executor, FailingExecutor)
    engine.executor.fails = (0, "after")
    with pytest.raises(RuntimeError, match="the device failed"):
        engine.step()
    assert len(engine.step()) == len(trace.requests)
    with pytest.raises(EngineEndedError, match="ended with RuntimeError: the device failed"):
        engine.step()


def _trace() -> Trace:
    requests = tuple(TraceRequest(0.0, tuple(range(n, n + 9)), 5, 9) for n in range(6))
    return Trace(4, 40, 64, 2, True, requests)
