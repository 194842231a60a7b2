"""The open loop, against an engine that serves one token per request and step, on a clock that only it moves."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.interfaces.observer import Observer, Output
from framework.interfaces.records import RequestRecord, StepRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest
from framework.records.metrics.recorder import Recorder
from framework.workloads.drive import drive

STEP_S = 1.0


class FakeClock:
    def __init__(self) -> None:
        self.time_s, self.slept_until_s = 0.0, []  # type: float, list[float]

    def now_s(self) -> float:
        return self.time_s

    def sleep_until(self, time_s: float) -> None:
        assert time_s > self.time_s, "slept with work to do"
        self.slept_until_s.append(time_s)
        self.time_s = time_s

    def restart(self) -> None:
        self.time_s = 0.0


@dataclass
class FakeOutput:
    request_id: int
    new_token_ids: list[int]
    text_delta: str
    finished: bool
    finish_reason: str | None
    record: RequestRecord | None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""


def record(request_id: int, arrival_s: float = 0.0, finish_s: float = 1.0, tokens: int = 1) -> RequestRecord:
    return RequestRecord(
        request_id=request_id,
        client="",
        arrival_s=arrival_s,
        scheduled_s=arrival_s,
        first_token_s=arrival_s,
        finish_s=finish_s,
        num_prompt_tokens=1,
        num_output_tokens=tokens,
        num_cached_tokens=0,
        num_preemptions=0,
        finish_reason="length",
    )


class FakeEngine:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.observers: list[Any] = []
        self.left: dict[int, list[Any]] = {}
        self.added: list[tuple[int, float, float]] = []
        self.wants_text: dict[int, bool] = {}
        self.prompts: dict[int, list[int]] = {}
        self.deadlines: list[float | None] = []
        self.steps = 0
        self.fail_at = -1

    @property
    def has_work(self) -> bool:
        return bool(self.left)

    def add_request(self, spec: RequestSpec) -> int:
        if not spec.prompt_token_ids:
            raise ValueError("prompt has 0 tokens, at least 1")
        request_id = len(self.added)
        assert spec.arrival_s is not None
        self.added.append((request_id, spec.arrival_s, self.clock.now_s()))
        self.deadlines.append(spec.deadline_s)
        self.wants_text[request_id] = spec.streams
        self.prompts[request_id] = list(spec.prompt_token_ids)
        self.left[request_id] = [spec.params.max_tokens, spec.params.max_tokens, spec.arrival_s]
        return request_id

    def step(self) -> Sequence[Output]:
        if self.steps == self.fail_at:
            raise KeyboardInterrupt
        self.clock.time_s += STEP_S
        step = StepRecord(
            step=self.steps,
            submit_s=self.clock.time_s - STEP_S,
            finish_s=self.clock.time_s,
            plan_s=0.0,
            run_s=STEP_S,
            num_rows=len(self.left),
            num_prefill_tokens=0,
            num_decode_tokens=len(self.left),
            num_padding_tokens=0,
            graph_key="eager",
            num_running=len(self.left),
            num_waiting=0,
            blocks_used=1,
            blocks_cached=0,
            blocks_free=1,
            evictions=0,
            preemptions=0,
            cache_hit_blocks=0,
            cache_lookup_blocks=0,
        )
        self.steps += 1
        for observer in self.observers:
            observer.on_step(step)
        outputs: list[FakeOutput] = []
        for request_id, state in list(self.left.items()):
            state[0] -= 1
            if state[0] == 0:
                outputs.append(self.finish(request_id, "length"))
            elif self.wants_text[request_id]:
                outputs.append(FakeOutput(request_id, [7], "x", False, None, None))
        return outputs

    def finish(self, request_id: int, reason: str) -> FakeOutput:
        left, total, arrival_s = self.left.pop(request_id)
        ended = record(request_id, arrival_s, self.clock.time_s, total - left)
        text = "x" * (total - left) if self.wants_text[request_id] else ""
        return FakeOutput(request_id, [7], text[-1:], True, reason, ended, [7] * (total - left), text)

    def abort(self, request_id: int) -> FakeOutput | None:
        return self.finish(request_id, "abort") if request_id in self.left else None


def timed(arrival_s: float, tokens: int = 1, **more: Any) -> TimedRequest:
    more.setdefault("prompt_token_ids", [1])
    return TimedRequest(arrival_s=arrival_s, params=SamplingParams(max_tokens=tokens), **more)


def test_requests_enter_when_they_arrive_and_idle_time_is_slept() -> None:
    engine, recorder = FakeEngine(), Recorder(keep_outputs=True)
    drive(engine, [timed(0.0, 2), timed(0.0), timed(1.5), timed(10.0)], [recorder])
    # (id, arrival handed on, clock when added): the third arrives inside the second step and waits for its end
    assert engine.added == [(0, 0.0, 0.0), (1, 0.0, 0.0), (2, 1.5, 2.0), (3, 10.0, 10.0)]
    assert engine.clock.slept_until_s == [10.0]
    assert [r.request_id for r in recorder.requests] == [1, 0, 2, 3]
    assert [s.finish_s for s in recorder.steps] == [1, 2, 3, 11]
    assert engine.observers == []


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=12), places=st.integers(1, 5))
def test_a_closed_load_is_list_scheduling(lengths: list[int], places: int) -> None:
    """Requests that all wait are taken in order by whichever of the places is free first (Graham 1966)."""
    free_s, starts_s = [0.0] * places, []
    for length in lengths:
        starts_s.append(free_s[0])
        heapq.heapreplace(free_s, free_s[0] + length)
    engine, recorder = FakeEngine(), Recorder(keep_outputs=False)
    drive(engine, [timed(0.0, length) for length in lengths], [recorder], max_concurrency=places)
    assert [arrival_s for _, arrival_s, _ in engine.added] == starts_s
    assert max(step.num_running for step in recorder.steps) == min(places, len(lengths))
    by_id = sorted(recorder.requests, key=lambda request: request.request_id)
    assert [r.finish_s - r.arrival_s for r in by_id] == lengths


def test_a_closed_load_waits_for_arrivals_moves_deadlines_and_is_freed_by_refusals() -> None:
    engine, recorder = FakeEngine(), Recorder(keep_outputs=False)
    requests = [timed(0.0, 2, deadline_s=5.0), timed(0.5, prompt_token_ids=[]), timed(1.0, 1, deadline_s=1.5)]
    drive(engine, [*requests, timed(9.0)], [recorder], max_concurrency=1)
    assert [arrival_s for _, arrival_s, _ in engine.added] == [0.0, 2.0, 9.0]
    assert engine.deadlines == [5.0, 2.5, None]


def test_refused_requests_are_recorded_and_the_others_finish() -> None:
    engine, recorder = FakeEngine(), Recorder(keep_outputs=True)
    requests = [timed(0.0, prompt_token_ids=[], label="empty"), timed(0.0, 2), timed(1.0, error="bad", origin="t:3")]
    drive(engine, requests, [recorder])
    rejected = [r for r in recorder.requests if r.finish_reason == "rejected"]
    assert [(r.request_id, r.error) for r in rejected] == [(-1, "prompt has 0 tokens, at least 1"), (-2, "t:3: bad")]
    assert [r.num_output_tokens for r in recorder.requests if r.finish_reason == "length"] == [2]
    assert [(o.request_id, o.prompt, o.text, o.token_ids) for o in recorder.outputs] == [
        (-1, "empty", "", []),
        (0, "", "", [7, 7]),
        (-2, "", "", []),
    ]


def test_interrupt_keeps_what_was_done_and_frees_the_engine_of_observers() -> None:
    engine, recorder = FakeEngine(), Recorder(keep_outputs=True, tokenizer=Digits())
    engine.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        drive(engine, [timed(0.0, 1), timed(0.0, 9, streams=True), timed(50.0)], [recorder])
    assert [(r.request_id, r.num_output_tokens) for r in recorder.requests] == [(0, 1), (1, 2)]
    assert [(o.text, o.finish_reason) for o in recorder.outputs] == [("7", "length"), ("xx", "abort")]
    assert engine.observers == []


def test_interrupt_stays_an_interrupt_where_aborting_fails() -> None:
    class Stubborn(FakeEngine):
        def abort(self, request_id: int) -> FakeOutput | None:
            raise AssertionError("in the middle of a plan")

    engine = Stubborn()
    engine.fail_at = 1
    with pytest.raises(KeyboardInterrupt):
        drive(engine, [timed(0.0, 9)], [Observer()])


class Digits:
    def decode(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(map(str, token_ids))


def test_observers_hear_each_step_before_its_outputs_once() -> None:
    heard: list[str] = []

    class Listener(Observer):
        def on_request(self, request_id: int, request: TimedRequest) -> None:
            heard.append(f"request {request_id}")

        def on_step(self, step: StepRecord) -> None:
            heard.append(f"step {step.step}")

        def on_outputs(self, outputs: Sequence[Output]) -> None:
            heard.append(f"outputs {len(outputs)}")

    drive(FakeEngine(), [timed(0.0), timed(0.0, 2, streams=True)], [Listener()])
    assert heard == ["request 0", "request 1", "step 0", "outputs 2", "step 1", "outputs 1"]


def test_a_follow_up_arrives_after_the_end_of_what_it_follows_and_continues_it() -> None:
    engine, recorder = FakeEngine(), Recorder(keep_outputs=False)
    requests = [
        timed(0.0, 2),
        timed(0.0, 3, after=0, delay_s=0.5, prompt_token_ids=[5]),
        timed(2.0),
        timed(0.0, after=1, delay_s=20.0, prompt_token_ids=[6]),
    ]
    drive(engine, requests, [recorder])
    # The first ends at 2; its follow-up arrives at 2.5, during the third's step, runs from 3 to 6; the last one at 26.
    assert engine.added == [(0, 0.0, 0.0), (1, 2.0, 2.0), (2, 2.5, 3.0), (3, 26.0, 26.0)]
    assert engine.prompts == {0: [1], 1: [1], 2: [1, 7, 7, 5], 3: [1, 7, 7, 5, 7, 7, 7, 6]}
    assert [r.arrival_s for r in recorder.requests] == [0.0, 2.0, 2.5, 26.0]
    assert requests[1].arrival_s == 0.0  # drawn requests stay as they are: they can be run again
    again = FakeEngine()
    drive(again, requests, [])
    assert again.added == engine.added


def test_requests_of_one_time_enter_in_the_order_of_the_workload() -> None:
    engine = FakeEngine()
    requests = [timed(0.0), timed(0.0, after=0, delay_s=4.0), timed(5.0, prompt_token_ids=[2])]
    drive(engine, [*requests, timed(5.0, prompt_token_ids=[3])], [])
    assert [engine.prompts[i][-1] for i in (1, 2, 3)] == [1, 2, 3]


def test_follow_ups_of_a_refused_request_are_refused_too() -> None:
    engine, recorder = FakeEngine(), Recorder(keep_outputs=False)
    requests = [
        timed(3.0, prompt_token_ids=[]),
        timed(0.0, after=0, delay_s=9.0, origin="turn 1"),
        timed(0.0, after=1, delay_s=9.0, origin="turn 2"),
        timed(8.0),
    ]
    drive(engine, requests, [recorder])
    assert [(r.request_id, r.arrival_s, r.error) for r in recorder.requests if r.error] == [
        (-1, 3.0, "prompt has 0 tokens, at least 1"),
        (-2, 3.0, "turn 1: the request that it follows was refused"),
        (-3, 3.0, "turn 2: the request that it follows was refused"),
    ]
    assert [r.finish_s for r in recorder.requests if not r.error] == [9.0]


def test_an_interrupt_leaves_follow_ups_that_never_arrived_unrecorded() -> None:
    engine, recorder = FakeEngine(), Recorder(keep_outputs=False)
    engine.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        drive(engine, [timed(0.0, 2), timed(0.0, 9, after=0), timed(0.0, 9, after=1)], [recorder])
    assert [(r.request_id, r.num_output_tokens) for r in recorder.requests] == [(0, 2), (1, 0)]
