"""Exports the record to TensorBoard's event files, in the output folder."""

from __future__ import annotations

import sys
from typing import Any

from framework.interfaces.records import StepRecord
from framework.records.packages import need, one_line
from framework.records.plain import plain
from framework.records.record import Record
from framework.records.tracking.base import CellInfo, Tracker
from framework.records.tracking.event_file import EventFile
from framework.records.tracking.series import X_AXIS, condense
from framework.records.tracking.wandb_content import run_config
from framework.registry import TRACKERS

MAX_POINTS = 500


@TRACKERS.register("tensorboard")
class TensorboardTracker(Tracker):
    """Series over time, metrics and hyperparameters as TensorBoard event files in `tensorboard/` of the output folder.

    The step of a series is microseconds since the start of the run; the axes "relative" and "wall" show the same time.

    Look at a sweep with `tensorboard --logdir multirun/...`. All is written after the cell has ended, so it is in no
    timing. Needs (and no TensorFlow): pip install tensorboard.
    """

    def __init__(self, *, folder: str = "tensorboard") -> None:
        """
        Args:
            folder: of the event files, below the output folder.
        """
        need("tensorboard")
        self.folder = folder
        self._cell: CellInfo | None = None

    def start(self, cell: CellInfo) -> None:
        self._cell = cell

    def on_step(self, step: StepRecord) -> None:
        pass  # the series is made from the record

    def finish(self, record: Record) -> None:
        if self._cell is None:
            return
        try:
            self._write(self._cell, record)
        except Exception as error:  # noqa: BLE001 -- reported, not swallowed: no tracker may end a cell
            self.error = one_line(error)
            print(f"warning: tensorboard: {self.error} (the record is complete without it)", file=sys.stderr)

    def _write(self, cell: CellInfo, record: Record) -> None:
        with EventFile(cell.folder / self.folder) as file:
            for item in condense(record.steps, record.requests, MAX_POINTS):
                time_s = float(item.pop(X_AXIS))
                file.scalars(item, round(time_s * 1e6), time_s)
            metrics = {name: float(value) for name, value in record.metrics.items() if value is not None}
            ended = f"{record.status}: {record.reason}" if record.reason else record.status
            file.text("status", ended)
            file.hyperparameters(
                _flat(run_config(cell)) | {"status": record.status},
                {f"metrics/{name}": value for name, value in metrics.items()},
            )


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    found: dict[str, str | int | float | bool] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value if isinstance(value, str | int | float | bool) else str(plain(value))
    return found
