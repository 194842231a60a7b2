"""Exports the record to Trackio: a dashboard on this machine, without an account."""

from __future__ import annotations

import sys
import warnings

from framework.interfaces.records import StepRecord
from framework.records.packages import need, one_line
from framework.records.record import Record
from framework.records.tracking.base import CellInfo, Tracker
from framework.records.tracking.series import condense
from framework.records.tracking.wandb_content import MAX_TABLE_ROWS, REQUEST_COLUMNS, run_config
from framework.registry import TRACKERS

MAX_POINTS = 200


@TRACKERS.register("trackio")
class TrackioTracker(Tracker):
    """Series of steps, metrics, configuration and requests in Trackio's local database; `trackio show` opens it.

    Cells of a sweep share a group. All is written after the cell has ended, so it is in no timing. TRACKIO_DIR says
    where the database lies, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL send it elsewhere. Needs: pip install trackio.
    """

    def __init__(self, *, project: str = "servelab", group: str | None = None, run_name: str | None = None) -> None:
        """
        Args:
            project: Trackio project.
            group: shared by the cells of a sweep; None for the sweep's name.
            run_name: of the run; None for the cell's.
        """
        need("trackio")
        self.project, self.group, self.run_name = project, group, run_name
        self._cell: CellInfo | None = None

    def start(self, cell: CellInfo) -> None:
        self._cell = cell

    def on_step(self, step: StepRecord) -> None:
        pass  # the series is made from the record

    def finish(self, record: Record) -> None:
        if self._cell is None:
            return
        try:
            with warnings.catch_warnings(record=True) as caught:  # what fails inside of Trackio is only warned of
                warnings.simplefilter("always")
                self._send(self._cell, record)
            failed = [str(one.message) for one in caught if "failed" in str(one.message)]
            if failed:
                raise RuntimeError("; ".join(failed))
        except Exception as error:  # noqa: BLE001 -- reported, not swallowed: no tracker may end a cell
            self.error = one_line(error)
            print(f"warning: trackio: {self.error} (the record is complete without it)", file=sys.stderr)

    def _send(self, cell: CellInfo, record: Record) -> None:
        import pandas as pd
        import trackio

        config = run_config(cell) | {"study": cell.study, "tags": list(cell.tags), "status": record.status}
        run = trackio.init(
            project=self.project,
            name=self.run_name or cell.name or None,
            group=self.group or cell.group or None,
            config=config,
            embed=False,
            auto_log_gpu=False,  # the cell is over by then
            auto_log_cpu=False,
        )
        try:
            for i, item in enumerate(condense(record.steps, record.requests, MAX_POINTS)):
                run.log(item, step=i)
            last = {f"metrics/{name}": value for name, value in record.metrics.items() if value is not None}
            if record.requests:
                rows = [[getattr(r, name) for name in REQUEST_COLUMNS] for r in record.requests[:MAX_TABLE_ROWS]]
                last["tables/requests"] = trackio.Table(dataframe=pd.DataFrame(rows, columns=REQUEST_COLUMNS))
            run.log(last)
            if record.status == "failed":
                run.alert(
                    title=f"failed: {cell.name or cell.cell_id}", text=record.reason, level=trackio.AlertLevel.ERROR
                )
        finally:
            run.finish()
