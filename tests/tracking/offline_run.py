"""Reads what wandb wrote offline, with wandb's own record definition: a LevelDB log of protobuf records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK_SIZE = 32 * 1024
HEADER_SIZE = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    run_id: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    step_metrics: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    alerts: list[tuple[str, str, str]] = field(default_factory=list)
    """Title, text and level."""
    artifacts: dict[str, dict[str, str]] = field(default_factory=dict)
    """The files in the run, by name, and where they lie."""
    exit_code: int | None = None
    folder: Path = Path()

    def table(self, name: str) -> dict[str, Any]:
        """Columns and rows of the table logged as `name`."""
        path = next(row[f"{name}/path"] for row in self.history if f"{name}/path" in row)
        return json.loads((self.folder / "files" / path).read_text())


def read_offline_run(path: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    run = OfflineRun(folder=path.parent)
    for data in _chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.run_id, run.project, run.group = record.run.run_id, record.run.project, record.run.run_group
            run.name, run.tags = record.run.display_name, list(record.run.tags)
            run.job_type = record.run.job_type
            _merge(run.config, record.run.config.update)
        elif kind == "config":
            _merge(run.config, record.config.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _merge(row, record.history.item)
            run.history.append(row)
        elif kind == "summary":
            _merge(run.summary, record.summary.update)
        elif kind == "metric":
            name = record.metric.glob_name or record.metric.name
            run.step_metrics[name] = record.metric.step_metric
            if record.metric.options.hidden:
                run.hidden.add(name)
        elif kind == "alert":
            run.alerts.append((record.alert.title, record.alert.text, record.alert.level))
        elif kind == "artifact":
            contents = record.artifact.manifest.contents
            run.artifacts[record.artifact.name] = {entry.path: entry.local_path for entry in contents}
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _merge(into: dict[str, Any], items: Any) -> None:
    for item in items:
        into["/".join(item.nested_key) or item.key] = json.loads(item.value_json)


def _chunks(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B", "not a wandb file"
    at, pending = HEADER_SIZE, b""
    while at < len(data):
        room = BLOCK_SIZE - at % BLOCK_SIZE
        if room < HEADER_SIZE:  # a header never straddles two blocks
            at += room
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        if at + HEADER_SIZE + length > len(data):
            return  # still being written
        kind = data[at + 6]
        pending += data[at + HEADER_SIZE : at + HEADER_SIZE + length]
        at += HEADER_SIZE + length
        if kind in (FULL, LAST):
            yield pending
            pending = b""
