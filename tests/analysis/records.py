"""Records of cells that never ran, for what reads records. Written with the project's own writer."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.metrics.summary import summarize
from framework.records.record import Record, RecordWriter, cell_id

CONFIG: dict[str, Any] = {
    "model": {"name": "tiny", "weights": "random", "seed": 0},
    "workload": {"name": "synthetic", "num_requests": 6, "seed": None},
    "scheduler": {"name": "prefill_first", "victim": "youngest"},
    "eviction": {"name": "lru"},
    "executor": {"name": "local", "device": "auto"},
    "tracker": {"name": "files"},
    "engine": {"num_blocks": 100, "seed": 0},
    "seed": 0,
}
EFFECTIVE = {"attention": "paged_cpu", "device": "cpu", "num_blocks": 100}
ENVIRONMENT = {"git_revision": "a" * 40, "cpu": "a CPU", "device": "cpu", "device_name": None}


def config(**changes: Any) -> dict[str, Any]:
    """`CONFIG` with dotted keys changed (`__` for the dot); a text for a group changes its name alone."""
    made = copy.deepcopy(CONFIG)
    for name, value in changes.items():
        *path, last = name.split("__")
        node = made
        for part in path:
            node = node.setdefault(part, {})
        if isinstance(node.get(last), dict) and not isinstance(value, dict):
            node[last] = {"name": value}
        else:
            node[last] = value
    made["engine"]["seed"] = made["seed"]
    return made


def requests(num: int = 6, pace_s: float = 0.1) -> list[RequestRecord]:
    """Requests that arrive together and end one after the other, and one that is aborted, in no latency."""
    completed = [
        RequestRecord(
            request_id=i,
            client="",
            arrival_s=0.0,
            scheduled_s=i * pace_s,
            first_token_s=(i + 1) * pace_s,
            finish_s=(i + 3) * pace_s,
            num_prompt_tokens=16,
            num_output_tokens=3,
            num_cached_tokens=0,
            num_preemptions=0,
            finish_reason="length",
            token_times_s=[(i + 1) * pace_s, (i + 2) * pace_s, (i + 3) * pace_s],
        )
        for i in range(num)
    ]
    late = {"finish_reason": "abort", "finish_s": 90 * pace_s, "first_token_s": 80 * pace_s}
    return [*completed, dataclasses.replace(completed[0], request_id=num, **late)]


def steps(num: int = 8, pace_s: float = 0.1) -> list[StepRecord]:
    return [
        StepRecord(
            step=i,
            submit_s=i * pace_s,
            finish_s=(i + 1) * pace_s,
            plan_s=1e-4,
            run_s=0.9 * pace_s,
            num_rows=2,
            num_prefill_tokens=16 if i < 6 else 0,
            num_decode_tokens=2,
            num_padding_tokens=0,
            graph_key="eager",
            num_running=2,
            num_waiting=max(0, 5 - i),
            blocks_used=4 + i,
            blocks_cached=i,
            blocks_free=96 - 2 * i,
            evictions=0,
            preemptions=0,
            cache_hit_blocks=0,
            cache_lookup_blocks=1,
        )
        for i in range(num)
    ]


def write_cell(
    folder: Path,
    *,
    metrics: Mapping[str, float | None] | None = None,
    status: Any = "completed",
    reason: str = "",
    effective: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    pace_s: float = 0.1,
    traceback: str = "",
    **changes: Any,
) -> Path:
    """A record in `folder`: metrics of its requests and steps, overwritten by `metrics`."""
    asked = config(**changes)
    ran = status == "completed"
    rows, done = (requests(pace_s=pace_s), steps(pace_s=pace_s)) if ran else ([], [])
    record = Record(
        status=status,
        reason=reason,
        cell_id=cell_id(asked),
        requested=asked,
        effective={**EFFECTIVE, **(effective or {})} if ran else {},
        environment={**ENVIRONMENT, **(environment or {})},
        metrics={**summarize(rows, done), **(metrics or {})} if ran else {},
        requests=rows,
        steps=done,
        traceback=traceback,
    )
    RecordWriter(folder).write(record)
    return folder


def write_sweep(folder: Path, schedulers: Sequence[str] = ("prefill_first", "chunked_prefill"), seeds: int = 5) -> Path:
    """A sweep of schedulers and seeds, the second scheduler faster than the first by a tenth, with noise by seed."""
    noise = np.random.default_rng(0).normal(0, 0.02, (seeds, len(schedulers) + 1))
    number = 0
    for i, scheduler in enumerate(schedulers):
        for seed in range(seeds):
            pace_s = 0.1 * (1 - 0.1 * i) * (1 + 3 * noise[seed, -1]) * (1 + noise[seed, i] / 4)
            write_cell(folder / str(number), scheduler=scheduler, seed=seed, pace_s=float(pace_s))
            number += 1
    return folder
