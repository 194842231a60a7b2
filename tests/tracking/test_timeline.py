"""The timeline keeps the rules of the trace-event format, and shows what the records say."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.record import RecordWriter, read_record
from framework.records.timeline import write_timeline
from framework.records.tracking.base import CellInfo

Event = dict[str, Any]


def ns(time_us: float) -> int:
    return round(time_us * 1e3)


def validate(path: Path) -> list[Event]:
    """The events of `path`, after a check of what the format asks of each and of their nesting."""
    events: list[Event] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    spans: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    asynchronous: dict[tuple[int, str, int], list[Event]] = defaultdict(list)
    for event in events:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ts"] >= 0
        phase = event["ph"]
        if phase == "X":
            spans[event["pid"], event["tid"]].append((ns(event["ts"]), ns(event["ts"]) + ns(event["dur"])))
            assert event["dur"] >= 0
        elif phase in "be":
            asynchronous[event["pid"], event["cat"], event["id"]].append(event)
        elif phase == "C":
            assert event["args"]
            assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())
        elif phase == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
        else:
            assert phase == "i", f"unknown phase {phase}"
            assert event["s"] in ("g", "p", "t")
    for track in spans.values():
        open_ends: list[int] = []
        for begin, end in sorted(track, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], "spans of one track overlap without nesting"
            open_ends.append(end)
    for own in asynchronous.values():
        stack: list[str] = []
        assert [ns(e["ts"]) for e in own] == sorted(ns(e["ts"]) for e in own)
        for event in own:
            if event["ph"] == "b":
                stack.append(event["name"])
            else:
                assert stack.pop() == event["name"]
        assert not stack
    return events


def phases(events: list[Event], request_id: int) -> dict[str, tuple[float, float]]:
    own = [e for e in events if e.get("id") == request_id]
    begins = {e["name"]: e["ts"] / 1e6 for e in own if e["ph"] == "b"}
    return {e["name"]: (begins[e["name"]], e["ts"] / 1e6) for e in own if e["ph"] == "e"}


def step(number: int, submit_s: float, finish_s: float, run_s: float, replica: int = 0) -> StepRecord:
    return StepRecord(
        step=number,
        submit_s=submit_s,
        finish_s=finish_s,
        plan_s=0.125,
        run_s=run_s,
        num_rows=3,
        num_prefill_tokens=8,
        num_decode_tokens=2,
        num_padding_tokens=1,
        graph_key="r4",
        num_running=3,
        num_waiting=number,
        blocks_used=5,
        blocks_cached=2,
        blocks_free=1,
        evictions=4,
        preemptions=0,
        cache_hit_blocks=0,
        cache_lookup_blocks=0,
        replica=replica,
    )


def request(request_id: int, arrival_s: float, *times_s: float | None, replica: int = 0, **more: Any) -> RequestRecord:
    scheduled_s, first_token_s, finish_s = times_s
    assert finish_s is not None
    return RequestRecord(
        request_id=request_id,
        client="c",
        arrival_s=arrival_s,
        scheduled_s=scheduled_s,
        first_token_s=first_token_s,
        finish_s=finish_s,
        num_prompt_tokens=8,
        num_output_tokens=2,
        num_cached_tokens=4,
        num_preemptions=1,
        replica=replica,
        **{"finish_reason": "length", **more},
    )


def test_overlapped_steps_become_spans_one_after_the_other(tmp_path: Path) -> None:
    # The second is planned while the first runs; the third, of a simulation, while time stands still.
    steps = [step(0, 0.0, 1.0, 0.75), step(1, 0.25, 1.5, 0.625), step(2, 2.0, 2.0, 0.0), step(3, 2.0, 2.5, 0.5)]
    write_timeline(tmp_path / "t.json", [], steps, max_events=99)
    events = validate(tmp_path / "t.json")
    spans = {e["name"]: (e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6) for e in events if e["ph"] == "X"}
    assert spans == {
        "step 0": (0.25, 1.0),
        "step 1": (1.0, 1.5),
        "step 2": (2.0, 2.0),
        "step 3": (2.0, 2.5),
        "plan 0": (0.0, 0.125),
        "plan 1": (0.25, 0.375),
        "plan 2": (2.0, 2.0),
        "plan 3": (2.0, 2.125),
    }
    assert [e["args"]["waiting"] for e in events if e["ph"] == "C" and e["name"] == "requests"] == [0, 1, 2, 3]
    assert {tuple(e["args"].items()) for e in events if e["name"] == "KV blocks"} == {
        (("used", 5), ("cached", 2), ("free", 1))
    }
    args = next(e["args"] for e in events if e["name"] == "step 1")
    assert (args["rows"], args["prefill_tokens"], args["decode_tokens"], args["graph"]) == (3, 8, 2, "r4")


def test_requests_show_their_phases_however_they_end(tmp_path: Path) -> None:
    requests = [
        request(0, 0.5, 1.0, 2.0, 4.0),
        request(1, 0.5, 1.0, None, 3.0, finish_reason="abort"),
        request(2, 1.0, None, None, 3.0, finish_reason="abort"),
        request(-1, 2.0, None, None, 2.0, finish_reason="rejected", error="too long"),
    ]
    write_timeline(tmp_path / "t.json", requests, [], max_events=99)
    events = validate(tmp_path / "t.json")
    whole = {"request": (0.5, 4.0), "queued": (0.5, 1.0), "prefill": (1.0, 2.0), "decode": (2.0, 4.0)}
    assert phases(events, 0) == whole
    assert phases(events, 1) == {"request": (0.5, 3.0), "queued": (0.5, 1.0), "prefill": (1.0, 3.0)}
    assert phases(events, 2) == {"request": (1.0, 3.0), "queued": (1.0, 3.0)}
    assert [(e["ts"], e["args"]["error"]) for e in events if e["ph"] == "i"] == [(2e6, "too long")]


def test_a_long_run_is_whole_up_to_some_time_and_says_so(tmp_path: Path) -> None:
    steps = [step(i, float(i), i + 1.0, 1.0) for i in range(1000)]
    requests = [request(i, i + 0.5, i + 1.0, i + 2.0, i + 3.0) for i in range(1000)]
    write_timeline(tmp_path / "t.json", requests, steps, max_events=12 * 20 + 4)
    events = validate(tmp_path / "t.json")
    assert {e["name"] for e in events if e["ph"] == "X"} == {
        f"{kind} {i}" for kind in ("step", "plan") for i in range(21)
    }
    assert {e["id"] for e in events if "id" in e} == set(range(20))
    notes = json.loads((tmp_path / "t.json").read_text())["otherData"]
    assert notes["complete_until_s"] == 20.5
    assert (notes["steps_left_out"], notes["requests_left_out"]) == (979, 980)


def test_each_replica_has_tracks_of_its_own(tmp_path: Path) -> None:
    steps = [step(0, 0.0, 2.0, 2.0), step(0, 1.0, 3.0, 2.0, replica=1)]
    write_timeline(tmp_path / "t.json", [request(0, 0.0, 1.0, 2.0, 3.0, replica=1)], steps, max_events=99)
    events = validate(tmp_path / "t.json")
    assert [(e["pid"], e["ts"] / 1e6, e["dur"] / 1e6) for e in events if e["name"] == "step 0"] == [
        (1, 0, 2),
        (2, 1, 2),
    ]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert (names[1, 0], names[2, 0]) == ("replica 0", "replica 1")
    assert {e["pid"] for e in events if e.get("id") == 0} == {2}


@pytest.mark.parametrize("overlap", [0, 1])
def test_a_real_run_writes_one_when_asked(tmp_path: Path, overlap: int) -> None:
    asked = ["record.timeline=true", "workload=synthetic", "workload.num_requests=6", f"engine.overlap={overlap}"]
    cfg = compose(["tracker=files", "model=tiny", "workload.output_tokens_max=20", *asked])
    assert run_cell(cfg, CellInfo(folder=tmp_path, cell_id="x", config={})) == "completed"
    record = read_record(tmp_path)
    events = validate(tmp_path / "timeline.json")
    assert sum(e["name"].startswith("step ") for e in events) == len(record.steps)
    for one in record.requests:
        assert one.first_token_s is not None
        assert phases(events, one.request_id)["decode"] == pytest.approx((one.first_token_s, one.finish_s), abs=1e-8)
    RecordWriter(tmp_path)
    assert not (tmp_path / "timeline.json").exists()  # of a record that is removed
