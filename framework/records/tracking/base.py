"""The interface of a tracker: it exports the record, it is never its source, and it never makes a cell fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from framework.interfaces.observer import Observer
from framework.interfaces.records import StepRecord
from framework.records.record import Record, RecordWriter


@dataclass(slots=True, frozen=True, kw_only=True)
class CellInfo:
    """What is known of a cell before it runs."""

    folder: Path
    """Hydra's output folder, in which the record is written."""
    cell_id: str
    config: dict[str, Any]
    """The resolved configuration."""
    choices: dict[str, str] = field(default_factory=dict)
    """Hydra's choice for each group: `{"scheduler": "prefill_first"}`."""
    overrides: list[str] = field(default_factory=list)
    """What the command line changed."""
    name: str = ""
    group: str = ""
    """The sweep that the cell belongs to."""
    study: str = ""
    """The experiment that the cell is a part of."""
    tags: list[str] = field(default_factory=list)


class Tracker(Observer, ABC):
    """A tracker serves one cell: `start`, `on_step` for each step, and `finish` however the cell ended.

    Registers with `@TRACKERS.register("name")`, keyword-only parameters. Errors of the service behind it go to `error`,
    with a warning for the user, and do not leave these methods.
    """

    error: str = ""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that each cell would import for itself. A launcher that forks imports them once, before the first cell.
    Importing them may start no thread and use no GPU."""

    @abstractmethod
    def start(self, cell: CellInfo) -> None:
        """The cell begins. The model is not loaded yet."""

    @abstractmethod
    def finish(self, record: Record) -> None:
        """The cell ended and `record` is on disk. Returns when nothing of the cell is left to send."""

    def log_step(self, step: StepRecord) -> None:
        """`on_step` for callers that drive the engine themselves."""
        self.on_step(step)


def publish(record: Record, writer: RecordWriter, tracker: Tracker) -> None:
    """Write `record`, export it, and add to it what went wrong in the export.

    Raises:
        ValueError: when the record cannot be written.
    """
    writer.write(record)
    tracker.finish(record)
    if tracker.error:
        record.tracker_error = tracker.error
        writer.write_summary(record)
