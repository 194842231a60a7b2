"""Exports the record to Weights & Biases, one run per cell."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Literal, get_args

from framework.interfaces.records import StepRecord
from framework.records.packages import one_line
from framework.records.plain import plain
from framework.records.record import Record
from framework.records.tracking.base import CellInfo, Tracker
from framework.records.tracking.offline_runs import set_aside_offline_runs
from framework.records.tracking.series import condense, point
from framework.records.tracking.wandb_content import (
    X_AXES,
    artifact,
    images,
    request_points,
    run_config,
    run_id,
    tables,
)
from framework.records.tracking.wandb_login import logged_in
from framework.registry import TRACKERS

Mode = Literal["auto", "online", "offline", "disabled"]
MAX_POINTS = 200
POINT_INTERVAL_S = 2.0
INIT_TIMEOUT_S = 20.0
FINISH_TIMEOUT_S = 60.0


@TRACKERS.register("wandb")
class WandbTracker(Tracker):
    """A Weights & Biases run per cell: configuration, series of steps and requests, metrics, tables, figures, record.

    Cells of a sweep share a group; the study is their job type. A cell that is tried again replaces its run. In the
    table of runs, `scheduler` and the other choices are columns to group by; `parameters` holds what belongs to them.

    Online, a point of the step series leaves every two seconds. Offline, nothing happens until the cell is over (so
    wandb's second of start-up is in no timing), then everything is written to `wandb/` in the output folder. Whatever
    wandb raises is printed in one line and kept in the record as `tracker_error`; the cell goes on.
    """

    preload = ("wandb", "wandb.sdk.launch")  # the second is what wandb.init imports

    def __init__(
        self,
        *,
        project: str = "servelab",
        entity: str | None = None,
        mode: Mode = "auto",
        group: str | None = None,
        tags: list[str] | None = None,
        run_name: str | None = None,
        figures: bool | None = None,
        artifact: bool = True,
        alerts: bool = True,
    ) -> None:
        """
        Args:
            project: W&B project.
            entity: user or team; None for the login's default.
            mode: auto is WANDB_MODE if that is set, else online when logged in, else offline.
            group: shared by the cells of a sweep; None for the sweep's name.
            tags: added to those of the cell.
            run_name: of the run; None for the cell's.
            figures: draw latency distributions and the timeline of steps, which takes about a second. None draws them
                of single runs only: those of a sweep are on its page (`python -m framework report`).
            artifact: upload the files of the record too.
            alerts: send W&B's alert when a cell fails.
        """
        self.figures, self.artifact, self.alerts = figures, artifact, alerts
        self.project, self.entity, self.group, self.run_name = project, entity, group, run_name
        self.tags = list(tags or ())
        self.mode = _resolve(mode)
        self._run: Any = None
        self._cell: CellInfo | None = None
        self._pending: list[StepRecord] = []
        self._last_point_s = 0.0

    def start(self, cell: CellInfo) -> None:
        self._cell = cell
        if self.mode != "online":
            return
        if not logged_in():
            self._warn("tracker.mode=online needs a login: run `wandb login` or set WANDB_API_KEY")
            return
        try:
            self._run = self._open(cell)
            print(f"wandb: {self._run.url}")
        except Exception as error:  # noqa: BLE001 -- reported, not swallowed: no service may end a cell
            self._warn(one_line(error))
        self._last_point_s = time.monotonic()

    def on_step(self, step: StepRecord) -> None:
        if self._run is None:
            return  # offline the series is made from the record
        self._pending.append(step)
        now_s = time.monotonic()
        if now_s - self._last_point_s >= POINT_INTERVAL_S:
            self._last_point_s = now_s
            self._send_pending()

    def finish(self, record: Record) -> None:
        if self.mode == "disabled" or self.error or self._cell is None:
            self._close(record)
            return
        try:
            if self._run is None:
                self._run = self._open(self._cell)
                for item in condense(record.steps, record.requests, MAX_POINTS):
                    self._run.log(item)
            else:
                self._send_pending()
            self._export(self._cell, record)
        except Exception as error:  # noqa: BLE001 -- reported, not swallowed: no service may end a cell
            self._warn(one_line(error))
        self._close(record)

    def _open(self, cell: CellInfo) -> Any:
        import wandb  # a second

        if cell.group:
            set_aside_offline_runs(cell.folder)
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
            finish_timeout_raises=True,  # a lost connection must not hold up the next cell for ever
            disable_git=True,  # the record has the revision
            disable_code=True,
            x_save_requirements=False,
            x_disable_meta=self.mode == "offline",
            x_disable_machine_info=self.mode == "offline",
            x_disable_stats=self.mode == "offline",  # the cell is over by then
        )
        # A wandb agent has made the run already, and says which in the environment.
        has_agent = bool(os.environ.get("WANDB_RUN_ID") or os.environ.get("WANDB_SWEEP_ID"))
        run = wandb.init(
            # create_new with this handle: by default wandb hands out the run of a crashed cell a second time.
            reinit="create_new",
            mode="online" if self.mode == "online" else "offline",
            dir=str(cell.folder),
            project=self.project,
            entity=self.entity,
            id=None if has_agent else run_id(cell),
            group=self.group or cell.group or None,
            job_type=cell.study or None,
            name=self.run_name or cell.name or None,
            tags=[*self.tags, *cell.tags] or None,
            config=run_config(cell),
            settings=settings,
        )
        for metrics, x_axis in X_AXES.items():
            run.define_metric(x_axis, hidden=True, summary="none")
            run.define_metric(metrics, step_metric=x_axis, summary="none")
        run.define_metric("metrics/*", summary="none")  # the summary has them under their own names
        return run

    def _send_pending(self) -> None:
        steps, self._pending = self._pending, []
        if not steps:
            return
        try:
            self._run.log(point(steps))
        except Exception as error:  # noqa: BLE001 -- reported, not swallowed: no service may end a cell
            self._warn(one_line(error))

    def _export(self, cell: CellInfo, record: Record) -> None:
        run = self._run
        run.config.update({"effective": plain(record.effective), "environment": plain(record.environment)})
        metrics = {name: value for name, value in record.metrics.items() if value is not None}
        run.summary.update(metrics)
        run.summary.update({"status": record.status, "reason": record.reason})
        if record.status == "failed" and self.alerts:
            run.alert(title=f"failed: {cell.name or cell.cell_id}", text=record.reason, level="ERROR")
        for item in request_points(record.requests, MAX_POINTS):
            run.log(item)
        # W&B draws charts of what is logged, and none of what is in the summary only.
        run.log({**tables(record), **{f"metrics/{name}": value for name, value in metrics.items()}})
        draw = not cell.group if self.figures is None else self.figures
        if draw and record.status == "completed":
            run.log(images(cell))
        if self.artifact:
            run.log_artifact(artifact(cell))

    def _close(self, record: Record) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=0 if record.status in ("completed", "skipped") else 1)
            if self.mode == "offline" and not self.error:
                why = "offline" if logged_in() else "not logged in, so offline"
                print(f"wandb: {why}; upload this run with: wandb sync {os.path.dirname(run.dir)}")
        except Exception as error:  # noqa: BLE001 -- reported, not swallowed: no service may end a cell
            self._warn(one_line(error))

    def _warn(self, message: str) -> None:
        self.error = self.error or message
        print(f"warning: wandb: {message} (the record in the output folder is complete without it)", file=sys.stderr)


def _resolve(mode: Mode) -> Mode:
    if mode not in get_args(Mode):
        raise ValueError(f"tracker.mode={mode!r} must be one of {', '.join(get_args(Mode))}")
    if mode != "auto":
        return mode
    asked = os.environ.get("WANDB_MODE", "")
    if asked in ("online", "offline", "disabled"):
        return asked  # type: ignore[return-value]
    return "online" if logged_in() else "offline"
