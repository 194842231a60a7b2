"""`hydra/launcher=in_process`: one process for all cells, with weights loaded once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from framework.app.launching.child import LOG
from framework.app.launching.display.live import SweepTable
from framework.app.launching.ending import settle
from framework.app.launching.jobs import Job, Setting, begun_key, resolved
from framework.app.launching.order import run_order
from framework.app.launching.sweep_file import Sweep
from framework.records.record import Status


class InProcessLauncher(Launcher):
    """Runs one cell after the other here; keys: `framework.app.launching.settings.InProcessSettings`.

    It starts faster than a process per cell and keeps the weights of the last model (see `effective.weights_reused`).
    In return a crash ends the sweep, and a cell's peak memory includes what earlier ones needed. The output of a cell
    is in its `cell.log`, as with a process per cell.
    """

    def __init__(self, order: str, order_seed: int) -> None:
        run_order(0, order, order_seed)
        self.order, self.order_seed = order, order_seed
        self._setting: Setting

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._setting = Setting(hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of cells.

        Raises:
            KeyboardInterrupt: after Ctrl-C, with the record of the running cell written.
        """
        from framework.execution.rank.reuse import reusing_weights

        setup_globals()
        configure_log(self._setting.config.hydra.hydra_logging, self._setting.config.hydra.verbose)
        sweep = self._setting.open_sweep()
        jobs = self._setting.add_jobs(sweep, job_overrides, initial_job_idx)
        table = SweepTable(sweep)
        returns: dict[int, JobReturn] = {}
        try:
            with reusing_weights():
                for i in run_order(len(jobs), self.order, self.order_seed):
                    returns[i] = self._run(jobs[i], sweep, table)
        finally:
            sweep.write()
        return [returns[i] for i in range(len(jobs))]

    def _run(self, job: Job, sweep: Sweep, table: SweepTable) -> JobReturn:
        composed = self._setting.compose(job)
        config = resolved(composed)
        folder = self._setting.sweep_folder / job.cell.folder
        job.cell.status = "running"
        sweep.write(now=False)
        started_s = time.monotonic()
        how = "Ctrl-C"
        status: Status = "interrupted"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / LOG, "w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
                done = self._setting.run(composed)
            how = ""
            status = "failed"
        except OSError as error:  # of the folder or the log; a cell records its own
            how, status = f"{type(error).__name__}: {error}", "failed"
            raise
        finally:
            job.cell.wall_s = round(time.monotonic() - started_s, 3)
            job.cell.status, job.cell.reason = settle(folder, config, begun_key(composed, config), how, status)
            configure_log(self._setting.config.hydra.hydra_logging, self._setting.config.hydra.verbose)
            table.on_end(job.cell)
        return done
