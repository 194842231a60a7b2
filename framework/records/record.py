"""The record of a cell: the folder of files that every other view of a run is made from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.atomic import full_disk, write_text
from framework.records.metrics.recorder import OutputRecord
from framework.records.metrics.summary import Metrics
from framework.records.plain import plain
from framework.records.tables import read_rows, write_rows
from framework.records.timeline import write_timeline
from framework.toolkit.read_file import parse_json, read_json, read_text

Status = Literal["completed", "failed", "skipped", "interrupted"]
SUMMARY, REQUESTS, STEPS = "summary.json", "requests.parquet", "steps.parquet"
SUPERSEDED = "superseded.json"
"""A summary that a sweep has put aside because other code made it. The files beside it are no longer a record."""
_MAX_OUTPUT_BYTES = 4 << 30
OUTPUTS, ERROR, TIMELINE = "outputs.jsonl", "error.txt", "timeline.json"
_IN_SUMMARY = (
    "status",
    "reason",
    "cell_id",
    "resume_key",
    "requested",
    "effective",
    "environment",
    "metrics",
    "tracker_error",
)


@dataclass(slots=True, kw_only=True)
class Record:
    """One cell, however it ended. Only the first fields exist for a cell that was skipped or failed before it ran."""

    status: Status
    reason: str = ""
    """Why the cell is not completed, or what a completed one did not serve, in one line."""
    cell_id: str
    resume_key: str = ""
    """Hash of configuration and code. A cell with the same key need not run again."""
    requested: dict[str, Any] = field(default_factory=dict)
    """What the configuration asked for."""
    effective: dict[str, Any] = field(default_factory=dict)
    """What ran: `auto` resolved and sizes computed."""
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    tracker_error: str = ""
    """What kept the tracker from exporting the record. The record itself is complete."""
    requests: list[RequestRecord] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    outputs: list[OutputRecord] | None = None
    """The outputs; None if they are not recorded."""
    traceback: str = ""


def cell_id(config: Mapping[str, Any]) -> str:
    """16 hex digits naming a resolved configuration: equal for equal values, in whatever order its keys come."""
    canonical = json.dumps(plain(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class RecordWriter:
    """Writes the record of one cell into `folder`, which it makes. A record that lies there already is removed.

    Args:
        timeline_max_events: write `timeline.json` too, of at most this many events; 0 for none.

    Raises:
        ValueError: when the folder cannot be written, naming it: construct it before anything expensive.
    """

    def __init__(self, folder: str | Path, *, timeline_max_events: int = 0) -> None:
        self.folder, self.timeline_max_events = Path(folder), timeline_max_events
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            for name in (SUMMARY, REQUESTS, STEPS, OUTPUTS, ERROR, TIMELINE):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(
                f"output folder {self.folder} cannot be written: {error.strerror}; set hydra.run.dir to one that can"
            ) from error
        if full := full_disk(self.folder):  # known before the run, not after it
            raise ValueError(full)

    def write(self, record: Record) -> None:
        """Write every file of `record`. `summary.json` comes last, so that the rest is complete if it exists.

        Raises:
            ValueError: naming the file that could not be written (a full disk, say).
        """
        try:
            write_rows(self.folder / REQUESTS, record.requests, RequestRecord)
            write_rows(self.folder / STEPS, record.steps, StepRecord)
            if record.outputs is not None:
                lines = (json.dumps(dataclasses.asdict(o), ensure_ascii=False) + "\n" for o in record.outputs)
                write_text(self.folder / OUTPUTS, "".join(lines))
            if self.timeline_max_events and (record.steps or record.requests):
                timeline = self.folder / TIMELINE
                write_timeline(timeline, record.requests, record.steps, max_events=self.timeline_max_events)
            if record.traceback:
                write_text(self.folder / ERROR, record.traceback)
        except OSError as error:
            raise ValueError(f"record in {self.folder} cannot be written: {error}") from error
        self.write_summary(record)

    def write_failure(self, record: Record, reason: str) -> None:
        """Write only a summary, which says that the whole of `record` could not be written, and why.

        Raises:
            ValueError: there is no room for that either.
        """
        for name in (REQUESTS, STEPS, OUTPUTS, TIMELINE):
            (self.folder / name).unlink(missing_ok=True)
        record.status, record.reason = "failed", reason
        record.requests, record.steps, record.outputs = [], [], None
        self.write(record)

    def write_summary(self, record: Record) -> None:
        """Write `summary.json` again after a tracker added to it.

        Raises:
            ValueError: naming the file that could not be written.
        """
        assert record.status in get_args(Status), f"unknown status {record.status!r}"
        summary = {name: plain(getattr(record, name)) for name in _IN_SUMMARY}
        path = self.folder / SUMMARY
        try:
            write_text(path, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error}") from error


def read_record(folder: str | Path) -> Record:
    """Read back what `RecordWriter.write` wrote.

    Raises:
        ValueError: when `folder` holds no finished record, or one that cannot be read, naming the file.
    """
    folder = Path(folder)
    path = folder / SUMMARY
    try:
        summary = read_json(path)
        outputs = None
        if (folder / OUTPUTS).exists():
            lines = read_text(folder / OUTPUTS, max_bytes=_MAX_OUTPUT_BYTES).split("\n")  # a text may hold U+2028
            outputs = [OutputRecord(**parse_json(line, f"{folder / OUTPUTS}")) for line in lines if line]
        return Record(
            **{name: summary[name] for name in _IN_SUMMARY},
            requests=read_rows(folder / REQUESTS, RequestRecord),
            steps=read_rows(folder / STEPS, StepRecord),
            outputs=outputs,
            traceback=read_text(folder / ERROR) if (folder / ERROR).exists() else "",
        )
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} does not exist: {folder} holds no finished record") from error
    except ValueError as error:
        raise ValueError(f"the record in {folder} cannot be read: {error}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"the record in {folder} cannot be read: {error!r}; another version wrote it?") from error
