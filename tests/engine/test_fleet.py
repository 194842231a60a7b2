"""A fleet against its replicas run one by one, and what a router is told at each arrival."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.fleet import Fleet
from framework.engine.intake import Intake
from framework.interfaces.clock import VirtualClock
from framework.interfaces.errors import PluginError
from framework.interfaces.graph import GraphLimits
from framework.interfaces.records import RequestRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest
from framework.records.metrics.recorder import Recorder
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo
from framework.registry import COST_MODELS, EVICTIONS, GRAPHS, SCHEDULERS
from framework.registry.discovery import discover
from framework.simulation.executor import SimulatedExecutor
from framework.workloads.drive import drive

discover()
BLOCK_SIZE, MAX_SEQS, BUDGET = 4, 3, 24


def engine(overlap: int = 1, num_blocks: int = 40, scheduler: str = "chunked_prefill") -> Engine:
    cost_model = COST_MODELS.build({"name": "constant", "step_s": 0.5, "token_s": 0.01, "host_s": 0.05}, None)
    limits = GraphLimits(max_num_seqs=MAX_SEQS, max_num_batched_tokens=BUDGET, mixed_supported=False)
    return Engine(
        SCHEDULERS.build({"name": scheduler}),
        EVICTIONS.build({"name": "lru"}),
        SimulatedExecutor(
            cost_model,
            GRAPHS.build({"name": "eager"}),
            limits,
            num_blocks=num_blocks,
            vocab_size=1000,
            clock=VirtualClock(),
        ),
        Intake(vocab_size=1000, max_model_len=120, simulated_block_size=BLOCK_SIZE),
        EngineConfig(
            block_size=BLOCK_SIZE,
            max_num_seqs=MAX_SEQS,
            max_num_batched_tokens=BUDGET,
            overlap=overlap,
        ),
    )


class Spy(Router):
    """Sends requests where it is told to, and writes down what it is told in return."""

    def __init__(self, targets: Sequence[int]) -> None:
        self.targets = targets
        self.seen: list[tuple[float, list[tuple[int, int]]]] = []

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        self.seen.append((request.arrival_s, [(r.num_requests, r.num_prompt_tokens) for r in replicas]))
        return self.targets[request.id]


def timed(arrival_s: float, num_prompt: int, max_tokens: int, first: int = 0, **more: Any) -> TimedRequest:
    prompt = [(first + i) % 1000 for i in range(num_prompt)]
    return TimedRequest(
        arrival_s=arrival_s, prompt_token_ids=prompt, params=SamplingParams(max_tokens=max_tokens), **more
    )


def run(target: Engine | Fleet, requests: Sequence[TimedRequest]) -> Recorder:
    recorder = Recorder(keep_outputs=False)
    drive(target, requests, [recorder])
    return recorder


arrivals = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.1, 0.55, 2.0, 9.0]),  # gaps, so that many share a time
        st.integers(1, 60),
        st.integers(1, 8),
        st.integers(0, 2),  # prompts that begin alike
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=arrivals, overlap=st.integers(0, 1), scheduler=st.sampled_from(["chunked_prefill", "prefill_first"]))
def test_each_replica_does_what_it_would_do_alone_with_its_requests(
    drawn: list[tuple[float, int, int, int, int]], overlap: int, scheduler: str
) -> None:
    requests, time_s = [], 0.0
    for gap_s, num_prompt, max_tokens, first, _ in drawn:
        time_s += gap_s
        requests.append(timed(time_s, num_prompt, max_tokens, first))
    targets = [target for *_, target in drawn]
    router = Spy(targets)
    together = run(Fleet([engine(overlap, scheduler=scheduler) for _ in range(3)], router), requests)
    assert len(together.requests) == len(requests)
    for index in range(3):
        places = [place for place, target in enumerate(targets) if target == index]
        alone = run(engine(overlap, scheduler=scheduler), [requests[place] for place in places])
        expected = [
            dataclasses.replace(record, request_id=places[record.request_id], replica=index)
            for record in alone.requests
        ]
        assert [record for record in together.requests if record.replica == index] == expected
        steps = [dataclasses.replace(step, plan_s=0.0) for step in together.steps if step.replica == index]
        assert steps == [dataclasses.replace(step, plan_s=0.0, replica=index) for step in alone.steps]
    check_view(router, requests, targets, together.requests)


def check_view(
    router: Spy, requests: Sequence[TimedRequest], targets: Sequence[int], records: Sequence[RequestRecord]
) -> None:
    """The router knew at each arrival of the requests sent before, except of those that had ended by then."""
    ends_s = {record.request_id: record.finish_s for record in records}
    for place, (arrival_s, seen) in enumerate(router.seen):
        assert arrival_s == requests[place].arrival_s
        for index, told in enumerate(seen):
            unfinished = [i for i in range(place) if targets[i] == index and ends_s[i] > arrival_s]
            tokens = sum(len(requests[i].prompt_token_ids or ()) for i in unfinished)
            assert told == (len(unfinished), tokens)


def test_follow_ups_are_routed_when_they_arrive() -> None:
    requests = [
        timed(0.0, 4, 2),
        timed(0.0, 4, 9, first=50),
        timed(0.0, 3, 2, after=0, delay_s=0.25),
        timed(0.0, 3, 2, after=2, delay_s=3.0),
    ]
    router = Spy([0, 1, 1, 0])
    recorder = run(Fleet([engine(), engine()], router), requests)
    records = {record.request_id: record for record in recorder.requests}
    assert [records[i].replica for i in range(4)] == [0, 1, 1, 0]
    assert records[2].arrival_s == records[0].finish_s + 0.25
    assert records[3].arrival_s == records[2].finish_s + 3.0
    assert [records[i].num_prompt_tokens for i in (2, 3)] == [4 + 2 + 3, 4 + 2 + 3 + 2 + 3]
    assert router.seen[2] == (records[2].arrival_s, [(0, 0), (1, 4)])


def test_a_refused_request_reaches_no_router_and_takes_an_id() -> None:
    router = Spy([0, -1, 1])
    recorder = run(Fleet([engine(), engine()], router), [timed(0, 9, 2), timed(0, 500, 2), timed(0, 9, 2)])
    assert [(r.request_id, r.replica) for r in recorder.requests if not r.error] == [(0, 0), (2, 1)]
    assert [r.error[:32] for r in recorder.requests if r.error] == ["the prompt has 500 tokens, but w"]
    assert len(router.seen) == 2


def test_a_router_that_names_no_replica_is_named() -> None:
    with pytest.raises(PluginError, match="router Spy sent request 0 to replica 2; there are 0 to 1"):
        run(Fleet([engine(), engine()], Spy([2])), [timed(0, 9, 2)])
    with pytest.raises(PluginError, match="router Spy sent request 0 to replica None; there are 0 to 1"):
        run(Fleet([engine(), engine()], Spy([None])), [timed(0, 9, 2)])  # type: ignore[list-item]

    class Broken(Router):
        def route(self, *_: Any) -> int:
            raise KeyError("lost")

    with pytest.raises(PluginError, match=r"router Broken .*test_fleet\.py:\d+.*KeyError: 'lost'"):
        run(Fleet([engine(), engine()], Broken()), [timed(0, 9, 2)])


def test_an_abort_is_one_of_the_replica_that_has_it() -> None:
    router = Spy([0, 1, 0])
    fleet = Fleet([engine(), engine()], router)
    for request in (timed(0, 9, 50), timed(0, 8, 50)):
        fleet.add_request(RequestSpec(prompt_token_ids=request.prompt_token_ids, params=request.params, arrival_s=0.0))
    fleet.step()
    output = fleet.abort(1)
    assert output is not None
    assert output.record is not None
    assert (output.record.replica, output.finish_reason) == (1, "abort")
    assert fleet.abort(1) is None
    fleet.add_request(RequestSpec(prompt_token_ids=[1], params=SamplingParams(max_tokens=1), arrival_s=99.0))
    assert router.seen[-1][1] == [(1, 9), (0, 0)]


def simulate(folder: Path, *overrides: str) -> Any:
    shape = ["num_sessions=12", "rate_per_s=40", "think_time_s=0.05", "system_tokens=96"]
    cfg = compose(
        [
            "tracker=files",
            "model=tiny",
            "executor=simulated",
            "workload=sessions",
            *(f"workload.{value}" for value in shape),
            *overrides,
        ]
    )
    run_cell(cfg, CellInfo(folder=folder, cell_id="x", config={}))
    return read_record(folder)


def test_the_record_of_a_fleet(tmp_path: Path) -> None:
    record = simulate(tmp_path, "executor.replicas=3", "router=least_loaded", "record.timeline=true")
    assert record.status == "completed"
    counts = [sum(r.replica == index for r in record.requests) for index in range(3)]
    assert sum(counts) == record.metrics["requests_completed"] > 30
    assert record.effective["requests_of_replicas"] == counts
    assert (record.effective["replicas"], record.effective["router"]) == (3, "least_loaded")
    assert {step.replica for step in record.steps} == {0, 1, 2}
    assert 0 < record.metrics["kv_utilization/mean"] < 1
    assert '"replica 2"' in (tmp_path / "timeline.json").read_text()


def test_affinity_finds_more_of_each_conversation_than_turns_do(tmp_path: Path) -> None:
    rates = [
        simulate(tmp_path / router, "executor.replicas=3", f"router={router}").metrics["prefix_cache_hit_rate"]
        for router in ("round_robin", "prefix_affinity")
    ]
    alone = simulate(tmp_path / "alone").metrics["prefix_cache_hit_rate"]
    assert rates[0] < rates[1] <= alone


def test_a_policy_with_foresight_is_refused_what_only_the_run_decides(tmp_path: Path) -> None:
    record = simulate(tmp_path / "fleet", "executor.replicas=2", "eviction=belady")
    assert record.status == "failed"
    assert "Belady needs to know the future, and a router decides" in record.reason
    record = simulate(tmp_path / "sessions", "eviction=belady")
    assert record.status == "failed"
    assert "Belady needs to know the future, and here some prompts continue answers" in record.reason


def test_a_fleet_needs_a_simulation() -> None:
    with pytest.raises(ValueError, match=r"executor\.replicas.*executor=local"):
        compose(["model=tiny", "executor.replicas=2"])
    with pytest.raises(ValueError, match=r"executor\.replicas=0: must be at least 1"):
        compose(["model=tiny", "workload=synthetic", "executor=simulated", "executor.replicas=0"])
