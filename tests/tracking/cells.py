"""A cell and its record, made up, for the tests of trackers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.metrics.recorder import OutputRecord
from framework.records.record import Record, RecordWriter
from framework.records.tracking.base import CellInfo, Tracker, publish
from framework.registry import TRACKERS
from framework.registry.discovery import discover

discover()


def step(i: int) -> StepRecord:
    values: dict[str, Any] = {f.name: i for f in dataclasses.fields(StepRecord)}
    times = {"submit_s": i / 10, "finish_s": (i + 1) / 10, "run_s": 0.1, "plan_s": 1e-3, "replica": 0}
    blocks = {"blocks_used": 2, "blocks_cached": i % 8, "blocks_free": 10 - i % 8}
    return StepRecord(**{**values, **times, **blocks, "graph_key": "eager"})


def request(i: int, reason: str = "stop") -> RequestRecord:
    values: dict[str, Any] = {f.name: i for f in dataclasses.fields(RequestRecord)}
    texts = {"client": "c", "category": "", "session": "", "finish_reason": reason, "error": ""}
    return RequestRecord(**{**values, **texts, "token_times_s": []})


def cell(folder: Path, scheduler: str = "prefill_first") -> CellInfo:
    return CellInfo(
        folder=folder,
        cell_id=f"id-{scheduler}",
        config={"scheduler": {"name": scheduler, "victim": "oldest"}, "engine": {"num_blocks": 8}, "seed": 3},
        choices={"scheduler": scheduler},
        overrides=[f"scheduler={scheduler}"],
        name=f"cell-{scheduler}",
        group="sweep",
        study="schedulers",
        tags=["t1"],
    )


def result(status: Any = "completed", num_steps: int = 3) -> Record:
    return Record(
        status=status,
        cell_id="id",
        effective={"attention": "sdpa"},
        environment={"python": "3"},
        metrics={"output_tokens_per_s": 12.5, "ttft_s/p99": None, "steps": num_steps},
        requests=[request(0), request(1, "rejected")],
        steps=[step(i) for i in range(num_steps)],
        outputs=[OutputRecord(request_id=0, prompt="p", text="é", token_ids=[1], finish_reason="stop")],
    )


def run_cell(
    folder: Path, record: Record, scheduler: str = "prefill_first", tracker: str = "wandb", **parameters: Any
) -> Any:
    """Run a cell's calls to its tracker, from start to end."""
    made: Tracker = TRACKERS.build({"name": tracker, **parameters})
    writer = RecordWriter(folder)
    made.start(cell(folder, scheduler))
    for one in record.steps:
        made.on_step(one)
    publish(record, writer, made)
    return made
