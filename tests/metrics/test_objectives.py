"""Objectives of single requests: from workloads and configuration to policies, and what the metrics make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framework.app.cells import run
from framework.interfaces.records import RequestRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.records.metrics.slo import Slo
from framework.records.metrics.summary import summarize, unknown_metric
from plugins.eviction.lru import LRU
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from tests.engine.shadow import make_engine
from tests.metrics.test_summary import request

# Of `request()`: TTFT 2 s, TPOT 1 s, E2E 6 s.


def shares(requests: list[RequestRecord], **slo: float) -> dict[str, float | int | None]:
    metrics = summarize(requests, [], slo=Slo(**slo))
    return {name.removesuffix("_attainment"): value for name, value in metrics.items() if name.endswith("_attainment")}


def test_each_objective_has_its_share_and_all_together() -> None:
    requests = [
        request(ttft_slo_s=2.5, tpot_slo_s=0.5),
        request(ttft_slo_s=1.0, weight=3.0),
        request(e2e_slo_s=7.0, deadline_s=2.0),
        request(),
    ]
    assert shares(requests) == {
        "slo": 1 / 4,
        "ttft": 1 / 2,
        "tpot": 0,
        "e2e": 1,
        "deadline": 0,
        "weighted": 1 / 6,
    }


def test_a_request_without_an_objective_has_that_of_the_configuration() -> None:
    requests = [request(), request(ttft_slo_s=1.0), request(ttft_slo_s=9.0)]
    assert shares(requests, ttft_s=2.5)["ttft"] == 2 / 3
    assert shares(requests, ttft_s=1.5)["ttft"] == 1 / 3
    assert shares(requests, ttft_s=1.5)["slo"] == 1 / 3


def test_a_request_that_did_not_complete_missed_its_objectives() -> None:
    requests = [request(ttft_slo_s=2.5), request(ttft_slo_s=2.5, finish_reason="failed", weight=4)]
    requests.append(request(finish_reason="rejected", ttft_slo_s=2.5, scheduled_s=None, first_token_s=None))
    assert (shares(requests)["ttft"], shares(requests)["weighted"]) == (1 / 3, 1 / 6)
    assert set(shares([request()]).values()) == {None}
    assert all(unknown_metric(f"{name}_attainment") is None for name in shares([]))


def test_policies_see_the_objectives_that_hold() -> None:
    engine = make_engine(ChunkedPrefill(), LRU())
    engine.intake.objectives = {"ttft_slo_s": 0.5, "e2e_slo_s": 9.0}
    own = {"ttft_slo_s": 0.1, "weight": 2.0}
    for fields in (own, {}):
        params = SamplingParams(max_tokens=1)
        engine.add_request(RequestSpec(prompt_token_ids=[1], params=params, output_tokens=7, **fields))
    first, second = (one.spec for one in engine.queue.waiting)
    assert (first.ttft_slo_s, first.tpot_slo_s, first.e2e_slo_s, first.weight) == (0.1, None, 9.0, 2.0)
    assert (second.ttft_slo_s, second.e2e_slo_s, second.weight) == (0.5, 9.0, 1.0)
    assert first.output_tokens is None
    record = engine.step()[0].record
    assert record is not None
    assert (record.ttft_slo_s, record.e2e_slo_s, record.weight) == (0.1, 9.0, 2.0)


@pytest.mark.parametrize(
    ("field", "says"),
    [({"tpot_slo_s": -1.0}, r"tpot_slo_s=-1\.0 must be at least 0"), ({"weight": float("nan")}, "weight=nan must be")],
)
def test_nonsense_is_refused(field: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_engine(ChunkedPrefill(), LRU()).add_request(RequestSpec(prompt_token_ids=[1], **field))


@pytest.mark.parametrize("workload", ["trace", "jsonl"])
def test_a_file_states_them(workload: str, tmp_path: Path) -> None:
    length: dict[str, Any] = {"prompt_tokens": 4, "time_s": 0} if workload == "trace" else {"prompt_token_ids": [1, 2]}
    lines = [
        {**length, "output_tokens": 5, "session": "s", "tpot_slo_s": 3.5, "weight": 2},
        {**length, "output_tokens": 5},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    overrides = [f"workload={workload}", f"workload.path={path}", "slo.tpot_s=1e-9", "executor=simulated"]
    record = run([*overrides, "model=tiny", "tracker=files", "engine.num_blocks=64"], folder=tmp_path / "cell")
    assert record.status == "completed", record.reason
    told = sorted((r.session, r.tpot_slo_s, r.weight) for r in record.requests)
    assert told == [("", 1e-9, 1.0), ("s", 3.5, 2.0)]
    assert (record.metrics["tpot_attainment"], record.metrics["weighted_attainment"]) == (0.5, pytest.approx(2 / 3))
