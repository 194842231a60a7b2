"""A run as a picture: `timeline.json` in the trace-event format, which Perfetto and chrome://tracing open.

Each replica is a process with a track for steps on the device, one for planning on the host, and counters; requests
are asynchronous spans, from arrival to end, with what they were doing inside. Times are those of the records.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.atomic import write_text

Event = dict[str, Any]
DEVICE, HOST = 1, 2
"""Thread ids of the two tracks of a replica, whose process id is its number + 1."""


def write_timeline(
    path: Path, requests: Sequence[RequestRecord], steps: Sequence[StepRecord], *, max_events: int
) -> None:
    """Write the events that fit into `max_events`, from the start of the run on. The file says what was left out.

    Steps count from their submission and requests from their arrival, so that the picture is whole up to some time.
    Names of tracks are not counted.
    """
    replicas = sorted({step.replica for step in steps} | {request.replica for request in requests})
    events = [event for replica in replicas for event in _names(replica)]
    allowed = len(events) + max_events
    left_out = {"steps": 0, "requests": 0}
    until_s: float | None = None
    parts = heapq.merge(_step_parts(steps), _request_parts(requests), key=lambda part: part.time_s)
    for part in parts:
        if until_s is None and len(events) + len(part.events) > allowed:
            until_s = part.time_s
        if until_s is None:
            events += part.events
        else:
            left_out[part.kind] += 1
    notes: dict[str, Any] = {"steps_left_out": left_out["steps"], "requests_left_out": left_out["requests"]}
    if until_s is not None:
        notes["complete_until_s"] = until_s
        notes["remedy"] = "record.timeline_max_events sets how much is kept"
    lines = ",\n".join(json.dumps(event, separators=(",", ":"), allow_nan=False) for event in events)
    write_text(path, f'{{"displayTimeUnit":"ms","otherData":{json.dumps(notes)},"traceEvents":[\n{lines}\n]}}\n')


@dataclass(slots=True)
class _Part:
    """The events of one step or request."""

    time_s: float
    kind: str
    events: list[Event] = field(default_factory=list)


def _names(replica: int) -> list[Event]:
    process = {"ph": "M", "ts": 0, "pid": replica + 1, "tid": 0}
    return [
        {**process, "name": "process_name", "args": {"name": f"replica {replica}"}},
        {**process, "name": "thread_name", "tid": DEVICE, "args": {"name": "device: steps"}},
        {**process, "name": "thread_name", "tid": HOST, "args": {"name": "host: planning"}},
    ]


def _step_parts(steps: Sequence[StepRecord]) -> Iterator[_Part]:
    """Spans of one track must not overlap, but overlapped steps do: a step's begins when the one before it has ended.

    It ends when its tokens reached the host and lasts as long as the device ran, if that much time was left. In a
    simulation the host's time is real and the clock virtual: planning is cut where the next plan begins.
    """
    ordered = sorted(steps, key=lambda step: step.submit_s)
    next_submit_s: dict[int, float] = {}
    plan_end_s: list[float] = []
    for step in reversed(ordered):
        plan_end_s.append(min(step.submit_s + step.plan_s, next_submit_s.get(step.replica, float("inf"))))
        next_submit_s[step.replica] = step.submit_s
    free_s: dict[int, float] = {}
    for step in ordered:
        begin_s = max(step.finish_s - step.run_s, step.submit_s, free_s.get(step.replica, 0.0))
        free_s[step.replica] = step.finish_s
        pid = step.replica + 1
        work = {
            "rows": step.num_rows,
            "prefill_tokens": step.num_prefill_tokens,
            "decode_tokens": step.num_decode_tokens,
            "padding_tokens": step.num_padding_tokens,
            "graph": step.graph_key,
            "run_ms": round(step.run_s * 1e3, 6),
            "evictions": step.evictions,
            "preemptions": step.preemptions,
        }
        queue = {"running": step.num_running, "waiting": step.num_waiting}
        blocks = {"used": step.blocks_used, "cached": step.blocks_cached, "free": step.blocks_free}
        name = f"step {step.step}"
        yield _Part(
            step.submit_s,
            "steps",
            [
                _span(
                    f"plan {step.step}",
                    pid,
                    HOST,
                    step.submit_s,
                    plan_end_s.pop(),
                    {"plan_ms": round(step.plan_s * 1e3, 6)},
                ),
                _span(name, pid, DEVICE, begin_s, step.finish_s, work),
                {"name": "requests", "ph": "C", "ts": _us(step.submit_s), "pid": pid, "tid": 0, "args": queue},
                {"name": "KV blocks", "ph": "C", "ts": _us(step.submit_s), "pid": pid, "tid": 0, "args": blocks},
            ],
        )


def _request_parts(requests: Sequence[RequestRecord]) -> Iterator[_Part]:
    for request in sorted(requests, key=lambda request: request.arrival_s):
        if request.finish_reason == "rejected":
            yield _Part(request.arrival_s, "requests", [_rejection(request)])
            continue
        about = {
            "request": request.request_id,
            "client": request.client,
            "prompt_tokens": request.num_prompt_tokens,
            "cached_tokens": request.num_cached_tokens,
            "output_tokens": request.num_output_tokens,
            "preemptions": request.num_preemptions,
            "finish_reason": request.finish_reason,
        }
        # What never began takes no time: the phase before it lasts until the end.
        scheduled_s = request.finish_s if request.scheduled_s is None else request.scheduled_s
        first_token_s = request.finish_s if request.first_token_s is None else request.first_token_s
        phases = [("queued", request.arrival_s, scheduled_s)]
        if request.scheduled_s is not None:
            phases.append(("prefill", scheduled_s, first_token_s))
        if request.first_token_s is not None:
            phases.append(("decode", first_token_s, request.finish_s))
        events = [_async(request, "b", "request", request.arrival_s, about)]
        for name, begin_s, end_s in phases:
            events += [_async(request, "b", name, begin_s), _async(request, "e", name, end_s)]
        yield _Part(request.arrival_s, "requests", [*events, _async(request, "e", "request", request.finish_s)])


def _span(name: str, pid: int, tid: int, begin_s: float, end_s: float, args: Event) -> Event:
    begin_us, end_us = _us(begin_s), _us(end_s)
    dur_us = round(max(0.0, end_us - begin_us), 3)
    return {
        "name": name,
        "cat": "engine",
        "ph": "X",
        "ts": begin_us,
        "dur": dur_us,
        "pid": pid,
        "tid": tid,
        "args": args,
    }


def _async(request: RequestRecord, phase: str, name: str, time_s: float, args: Event | None = None) -> Event:
    event = {
        "name": name,
        "cat": "request",
        "ph": phase,
        "id": request.request_id,
        "ts": _us(time_s),
        "pid": request.replica + 1,
        "tid": 0,
    }
    return event if args is None else {**event, "args": args}


def _rejection(request: RequestRecord) -> Event:
    about = {"client": request.client, "error": request.error}
    place = {"pid": request.replica + 1, "tid": 0}
    return {
        "name": "rejected",
        "cat": "request",
        "ph": "i",
        "s": "p",
        "ts": _us(request.arrival_s),
        **place,
        "args": about,
    }


def _us(time_s: float) -> float:
    """Microseconds to the nanosecond, as the format counts."""
    return round(time_s * 1e6, 3)
