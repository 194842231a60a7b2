"""True output lengths: requests end at them, and nothing that a policy is given leads to them."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.conformance.kit.shadow import ShadowExecutor, make_engine
from framework.conformance.kit.traces import Trace, traces
from framework.engine.engine import Engine
from framework.engine.hidden_lengths import HiddenLengths
from framework.engine.output import RequestOutput
from framework.interfaces.policies import Policies
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Queue, RequestView, StepPlan
from framework.interfaces.workload import TimedRequest
from plugins.eviction.lru import LRU
from plugins.predictors.oracle import Oracle
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from plugins.schedulers.shortest_first import ShortestFirst


def run(trace: Trace, *, hidden: bool, overlap: int) -> tuple[list[dict[int, int]], dict[int, RequestOutput]]:
    engine = make_engine(
        ChunkedPrefill(),
        LRU(),
        num_blocks=trace.num_blocks,
        block_size=trace.block_size,
        max_num_seqs=trace.max_num_seqs,
        max_num_batched_tokens=trace.max_num_batched_tokens,
        overlap=overlap,
        prefix_caching=trace.prefix_caching,
    )
    for request in trace.requests:
        most = 10_000 if hidden else request.max_tokens
        engine.add_request(
            RequestSpec(
                prompt_token_ids=request.prompt,
                params=SamplingParams(max_tokens=most, ignore_eos=True),
                output_tokens=request.max_tokens if hidden else None,
            )
        )
    outputs = {}
    while engine.has_work:
        outputs |= {output.request_id: output for output in engine.step() if output.finished}
    assert isinstance(engine.executor, ShadowExecutor)
    kept = engine._hidden._ends, engine._hidden._due_of
    assert kept == ({}, {}), "nothing is kept of requests that have ended"
    return engine.executor.steps, outputs


@settings(max_examples=60, deadline=None)
@given(traces(), st.sampled_from((0, 1, 2)))
def test_a_hidden_length_runs_as_the_same_max_tokens(trace: Trace, overlap: int) -> None:
    """Steps, tokens and reasons, whatever is chunked, preempted or in flight."""
    steps, outputs = run(trace, hidden=True, overlap=overlap)
    stated_steps, stated = run(trace, hidden=False, overlap=overlap)
    assert steps == stated_steps
    assert {i: (one.token_ids, one.finish_reason) for i, one in outputs.items()} == {
        i: (one.token_ids, one.finish_reason) for i, one in stated.items()
    }


@pytest.mark.parametrize(("stated", "length", "got"), [(5, 9, 5), (9, 5, 5), (5, 5, 5), (1, 7, 1), (7, 1, 1)])
def test_the_lower_of_limit_and_length_ends_it(stated: int, length: int, got: int) -> None:
    for overlap in (0, 1):
        engine = make_engine(ChunkedPrefill(), LRU(), overlap=overlap)
        engine.add_request(spec(length, stated))
        outputs = finish(engine)
        assert [(len(one.token_ids), one.finish_reason) for one in outputs] == [(got, "length")]


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="output_tokens=0 must be at least 1"):
        make_engine(ChunkedPrefill(), LRU()).add_request(spec(0))


def test_it_outlives_a_step_that_failed() -> None:
    class FailsOnce(ShadowExecutor):
        calls = 0

        def collect(self) -> Any:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().collect()

    engine = make_engine(
        ChunkedPrefill(), LRU(), overlap=1, renew=lambda: Policies(ChunkedPrefill(), LRU()), make_executor=FailsOnce
    )
    for length in (3, 8, 4):
        engine.add_request(spec(length))
    with pytest.raises(KeyboardInterrupt):
        finish(engine)
    assert sorted(len(one.token_ids) for one in finish(engine)) == [3, 4, 8]


def test_what_a_policy_is_given_does_not_lead_to_it() -> None:
    length = 987_654_321
    found: list[str] = []

    class Digs(ChunkedPrefill):
        def schedule(self, queue: Queue, plan: StepPlan) -> None:
            super().schedule(queue, plan)
            for root in (queue, plan, *queue.running, *queue.waiting):
                found.extend(paths_to(root, length))

        def on_arrival(self, request: RequestView) -> None:
            found.extend(paths_to(request, length))

        on_finish = on_arrival

        def on_tokens(self, request: RequestView, num_new: int) -> None:
            found.extend(paths_to(request, length))

    engine = make_engine(Digs(), LRU(), num_blocks=1 << 12)
    engine.intake.max_model_len = 1 << 40
    timed = TimedRequest(
        prompt_token_ids=[1, 2], params=SamplingParams(max_tokens=1 << 35), output_tokens=length, origin="trace:7"
    )
    assert [*paths_to(timed, length)], "the search finds what there is"
    engine.add_request(timed)
    for _ in range(3):
        engine.step()
    engine.abort(0)
    assert not found
    kept = engine.intake.build(1, timed, arrival_s=0.0).spec
    assert type(kept) is RequestSpec
    assert kept == dataclasses.replace(kept, output_tokens=None)


def paths_to(root: object, secret: int) -> Iterable[str]:
    """Where `secret`, or a total that it makes with a prompt of 2, or its keeper, is reachable without frames."""
    seen: set[int] = set()
    left = deque([(type(root).__name__, root)])
    while left:
        path, one = left.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, HiddenLengths | Engine) or (isinstance(one, int) and one in (secret, secret + 2)):
            yield path
        if isinstance(one, str | bytes | int | float | type):
            continue
        if isinstance(one, Mapping):
            left.extend((f"{path}[{key!r}]", value) for key, value in one.items())
        elif isinstance(one, list | tuple | set | frozenset | deque):
            left.extend((f"{path}[{i}]", value) for i, value in enumerate(one) if i < 100)
        names = [*getattr(one, "__dict__", ()), *(name for kind in type(one).__mro__ for name in slots(kind))]
        left.extend((f"{path}.{name}", getattr(one, name)) for name in names if hasattr(one, name))
        left.extend((f"{path}.{name}", value) for name, value in properties(one))


def slots(kind: type) -> tuple[str, ...]:
    given = kind.__dict__.get("__slots__", ())
    return (given,) if isinstance(given, str) else tuple(given)


def properties(one: object) -> Iterable[tuple[str, object]]:
    for kind in type(one).__mro__:
        for name, value in vars(kind).items():
            if isinstance(value, property) and type(one).__module__.startswith("framework."):
                yield name, getattr(one, name)


def test_an_oracle_is_told_before_each_arrival() -> None:
    calls: list[tuple[str, int, int]] = []

    class Asks(Oracle):
        def on_true_length(self, request: RequestView, num_output: int) -> None:
            calls.append(("length", request.id, num_output))
            super().on_true_length(request, num_output)

    class Notes(ChunkedPrefill):
        def on_arrival(self, request: RequestView) -> None:
            calls.append(("arrival", request.id, 0))
            assert request.predicted is not None
            assert request.predicted.mean == calls[-2][2]

    engine = make_engine(Notes(), LRU(), predictor=Asks())
    engine.add_request(spec(6))
    engine.add_request(RequestSpec(prompt_token_ids=[1], params=SamplingParams(max_tokens=9)))
    assert calls == [("length", 0, 6), ("arrival", 0, 0), ("length", 1, 9), ("arrival", 1, 0)]


def test_only_an_oracle_knows_who_is_short() -> None:
    lengths = (40, 3, 20, 9)

    def order(predictor: Oracle | None) -> list[int]:
        engine = make_engine(ShortestFirst(), LRU(), max_num_seqs=1, predictor=predictor)
        for length in lengths:
            engine.add_request(spec(length))
        return [one.request_id for one in finish(engine)]

    assert order(None) == [0, 1, 2, 3]
    assert order(Oracle()) == [1, 3, 2, 0]


def spec(length: int, stated: int = 100) -> RequestSpec:
    return RequestSpec(
        prompt_token_ids=[1, 2, 3], params=SamplingParams(max_tokens=stated, ignore_eos=True), output_tokens=length
    )


def finish(engine: Engine) -> list[RequestOutput]:
    outputs: list[RequestOutput] = []
    while engine.has_work:
        outputs += [output for output in engine.step() if output.finished]
    return outputs
