"""`hydra/launcher=process`, the default of a sweep: a process per cell, so that a crash costs one cell only."""

from __future__ import annotations

import importlib
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from framework.app.launching import child
from framework.app.launching.child import Child
from framework.app.launching.display.live import REFRESH_S, SweepTable
from framework.app.launching.ending import settle
from framework.app.launching.gpus import Leases, gpus_wanted, visible_gpus
from framework.app.launching.jobs import Job, Setting, begun_key, resolved
from framework.app.launching.order import run_order
from framework.app.launching.sweep_file import WRITE_INTERVAL_S, Sweep
from framework.records.record import SUMMARY
from framework.registry import TRACKERS

GRACE_S = 15.0
"""The time from Ctrl-C until cells that have not written their record are killed."""


@dataclass(slots=True)
class _Ready:
    """A composed cell that waits for its GPUs."""

    job: Job
    composed: DictConfig
    config: dict[str, Any]
    key: str
    num_gpus: int


@dataclass(slots=True)
class _Running:
    job: Job
    child: Child
    config: dict[str, Any]
    key: str
    folder: Path


class ProcessLauncher(Launcher):
    """Forks a process for each cell and watches over it; keys: `framework.app.launching.settings.ProcessSettings`.

    The fork happens before torch is imported, so it costs milliseconds and shares no state of CUDA; GPUs and output
    of a cell are its own. A cell that crashes, is killed or takes too long gets its record from here.
    """

    def __init__(
        self,
        gpus_per_cell: int | None,
        max_parallel: int | None,
        timeout_s: float | None,
        order: str,
        order_seed: int,
    ) -> None:
        for name, value, least in (("gpus_per_cell", gpus_per_cell, 0), ("max_parallel", max_parallel, 1)):
            if value is not None and value < least:
                raise ValueError(f"hydra.launcher.{name}={value}: must be at least {least}, or null")
        if timeout_s is not None and timeout_s <= 0:
            raise ValueError(f"hydra.launcher.timeout_s={timeout_s}: must be above 0, or null for no limit")
        run_order(0, order, order_seed)
        self.gpus_per_cell, self.max_parallel, self.timeout_s = gpus_per_cell, max_parallel, timeout_s
        self.order, self.order_seed = order, order_seed
        self._setting: Setting

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._setting = Setting(hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of cells.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, when every cell has ended and has its record.
        """
        setup_globals()
        configure_log(self._setting.config.hydra.hydra_logging, self._setting.config.hydra.verbose)
        sweep = self._setting.open_sweep()
        jobs = self._setting.add_jobs(sweep, job_overrides, initial_job_idx)
        order = run_order(len(jobs), self.order, self.order_seed)
        with sigterm_as_interrupt(), SweepTable(sweep) as table:
            batch = _Batch(self, sweep, table, deque(jobs[i] for i in order))
            try:
                batch.run()
            except KeyboardInterrupt:
                batch.interrupt()
                raise
            finally:
                batch.kill_all()
                sweep.write()
        return [JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED) for job in jobs]


class _Batch:
    """The cells of one `launch`: those that wait, those that run, and what their ends mean."""

    def __init__(self, launcher: ProcessLauncher, sweep: Sweep, table: SweepTable, waiting: deque[Job]) -> None:
        self.launcher, self.sweep, self.table, self.waiting = launcher, sweep, table, waiting
        self.setting = launcher._setting
        self.leases = Leases(visible_gpus(), launcher.max_parallel)
        self.running: list[_Running] = []
        self.ready: _Ready | None = None

    def run(self) -> None:
        """Run until every cell has ended."""
        while self.waiting or self.ready or self.running:
            while self._start_next():
                pass
            if not self.running:
                continue
            wait([running.child.process.sentinel for running in self.running], timeout=self._patience_s())
            for running in list(self.running):
                self._look_after(running)
            self.table.refresh()
            self.sweep.write(now=False)

    def interrupt(self) -> None:
        """Hand Ctrl-C on to the running cells and wait for their records; a second one kills them."""
        self.table.console.print("interrupted: cells write their records (Ctrl-C again kills them)")
        for running in self.running:
            running.child.interrupt()
        deadline_s = time.monotonic() + GRACE_S
        try:
            while self.running and time.monotonic() < deadline_s:
                wait([running.child.process.sentinel for running in self.running], timeout=0.2)
                for running in [r for r in self.running if not r.child.process.is_alive()]:
                    self._end(running, "Ctrl-C", status="interrupted")
        except KeyboardInterrupt:
            pass
        for running in list(self.running):
            running.child.kill()
            self._end(running, "Ctrl-C, killed before it could write its record", status="interrupted")

    def kill_all(self) -> None:
        """Leave no process behind, whatever happened."""
        for running in self.running:
            running.child.kill()

    def _start_next(self) -> bool:
        """Start a cell if one waits and there is room. Only one cell is composed ahead, to save memory."""
        if self.ready is None and self.waiting:
            self.ready = self._prepare(self.waiting.popleft())
        if (ready := self.ready) is None:
            return False
        if ready.num_gpus > self.leases.num_gpus:
            reason = f"needs {ready.num_gpus} GPUs, this machine has {self.leases.num_gpus}"
            self._close(ready.job, *settle(self._folder(ready.job), ready.config, ready.key, reason, "skipped"))
            self.ready = None
            return True
        gpus = self.leases.take(ready.num_gpus)
        if gpus is None:
            return False
        self.ready = None
        folder = self._folder(ready.job)
        (folder / SUMMARY).unlink(missing_ok=True)  # of a run that did not complete and is resumed
        ready.job.cell.status, ready.job.cell.gpus = "running", gpus
        started = child.start(partial(self.setting.run, ready.composed), folder, gpus)
        self.running.append(_Running(ready.job, started, ready.config, ready.key, folder))
        self.table.on_start(ready.job.cell)
        self.sweep.write(now=False)
        return True

    def _prepare(self, job: Job) -> _Ready:
        composed = self.setting.compose(job)
        config = resolved(composed)
        _preload(str(config["tracker"]["name"]))
        wanted = self.launcher.gpus_per_cell
        if wanted is None:
            wanted = gpus_wanted(config["executor"], self.leases.num_gpus)
        return _Ready(job, composed, config, begun_key(composed, config), wanted)

    def _look_after(self, running: _Running) -> None:
        if not running.child.process.is_alive():
            self._end(running, running.child.how_it_ended())
            return
        limit_s = self.launcher.timeout_s
        if limit_s is not None and time.monotonic() - running.child.started_s > limit_s:
            running.child.kill()
            self._end(running, f"killed after hydra.launcher.timeout_s={limit_s:g}")

    def _end(self, running: _Running, how: str, status: Any = "failed") -> None:
        running.child.process.join()
        running.child.kill_rest()
        self.running.remove(running)
        self.leases.give_back(running.child.gpus)
        running.job.cell.wall_s = round(time.monotonic() - running.child.started_s, 3)
        self._close(running.job, *settle(running.folder, running.config, running.key, how, status))

    def _close(self, job: Job, status: str, reason: str) -> None:
        job.cell.status, job.cell.reason = status, reason
        self.table.on_end(job.cell)

    def _patience_s(self) -> float:
        """Wait until something has to be looked at, even if no cell ends."""
        limits_s = [REFRESH_S if self.table.console.is_terminal else WRITE_INTERVAL_S]
        if self.launcher.timeout_s is not None:
            now_s = time.monotonic()
            limits_s += [r.child.started_s + self.launcher.timeout_s - now_s for r in self.running]
        return max(0.0, min(limits_s))

    def _folder(self, job: Job) -> Path:
        return self.setting.sweep_folder / job.cell.folder


def _preload(tracker: str) -> None:
    """Import here, once, what every cell would import for its tracker. The cells are forks and inherit it."""
    for module in TRACKERS.get(tracker).preload:
        with suppress(ImportError):  # the tracker itself says so in the cell
            importlib.import_module(module)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM (the farewell of a job scheduler) as Ctrl-C."""

    def as_interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, as_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
