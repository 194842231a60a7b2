"""`hydra/launcher=slurm_cell`: a Slurm job per cell, all of one array. Needs submitit's launcher for Hydra."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, setup_globals

from framework.app.launching.process import sigterm_as_interrupt
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as OneCell

POLL_S = 5.0
FILE_LIMIT_S = 20.0
"""How long a shared file system may take to show what a job wrote before it ended."""
SILENT_POLLS = 12
"""After so many failed calls of `squeue` in a row the wait ends: a minute, in which a busy controller comes back."""
BASE_KEYS = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node"),
    *("mem_gb", "nodes", "name", "stderr_to_stdout"),
)
"""The keys that submitit has for every kind of cluster; the others are Slurm's."""


class SlurmLauncher(OneCell):
    """Submits the cells and waits until every one of them has left the queue.

    The launcher of submitit asks `sacct`, and waits for a lost job for ever where there is no accounting. It ends at
    the first lost job while the others still run. This one asks `squeue`, and ends when every job has.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self._waited_for: set[str] = set()
        """The job arrays of earlier rounds of this search. Their results are there, though jobs may still be ending."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of cells.

        Raises:
            ValueError: jobs of an earlier launch of this sweep are still in the queue, or Slurm no longer answers.
            RuntimeError: a job ended without a result, after all the others have ended too.
            KeyboardInterrupt: after Ctrl-C or SIGTERM, with the jobs cancelled.
        """
        import submitit

        assert self.config is not None
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        folder = Path(str(self.params["submitit_folder"]))
        refuse_queued(folder.parent, self._waited_for)
        executor = submitit.AutoExecutor(
            cluster="slurm", folder=folder, slurm_max_num_timeout=self.params["max_num_timeout"]
        )
        keys = {key: value for key, value in self.params.items() if key not in ("submitit_folder", "max_num_timeout")}
        executor.update_parameters(**{key if key in BASE_KEYS else f"slurm_{key}": keys[key] for key in keys})
        with sigterm_as_interrupt():
            numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
            jobs = executor.map_array(
                self,
                list(map(list, job_overrides)),
                ["hydra.sweep.dir"] * len(numbers),
                numbers,
                [f"job_id_for_{number}" for number in numbers],
                [Singleton.get_state()] * len(numbers),
            )
            array = jobs[0].job_id.partition("_")[0]
            results = [job.paths.result_pickle for job in jobs]
            try:
                wait_for(results, lambda: queued([array]))
            except KeyboardInterrupt:
                subprocess.run(["scancel", array], check=False)
                raise
            self._waited_for.add(array)
        lost = [job for job, result in zip(jobs, results, strict=True) if not result.exists()]
        if lost:
            raise RuntimeError(
                f"{len(lost)} of {len(jobs)} Slurm jobs ended without a result, the first of them {lost[0].job_id}; "
                f"its output is {lost[0].paths.stderr}"
            )
        return [job.result() for job in jobs]


def queued(arrays: Sequence[str]) -> list[str]:
    """Those of the job arrays that Slurm has not finished, by number.

    Raises:
        ValueError: Slurm does not answer.
    """
    done = subprocess.run(["squeue", "--noheader", "--format=%A %F"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"squeue: {done.stderr.strip()}; without it nobody knows which cells still run")
    there = {number for line in done.stdout.splitlines() for number in line.split()}
    return [array for array in arrays if array in there]


def refuse_queued(folder: Path, waited_for: Collection[str] = ()) -> None:
    """Refuse to submit a cell that an earlier launch has submitted, and which would then run twice.

    Args:
        folder: where submitit keeps a folder for each job of this sweep, named by its number.
        waited_for: job arrays of this process whose cells have ended.

    Raises:
        ValueError: naming the jobs.
    """
    names = [path.name.partition("_")[0] for path in folder.iterdir()] if folder.is_dir() else []
    arrays = sorted({name for name in names if name.isdigit() and name not in waited_for})
    if arrays and (there := queued(arrays)):
        raise ValueError(
            f"Slurm jobs of an earlier launch of this sweep are still in the queue: {' '.join(there)}. Wait until they "
            f"have ended, or end them: scancel {' '.join(there)}"
        )


def wait_for(results: Sequence[Path], busy: Callable[[], Any]) -> None:
    """Until every job has written its result, or none is `busy` any more and no file can be on its way.

    Raises:
        ValueError: `busy` raised it `SILENT_POLLS` times in a row. Fewer failures count as busy.
    """
    idle_since_s: float | None = None
    failures = 0
    while not all(result.exists() for result in results):
        try:
            is_busy, failures = bool(busy()), 0
        except ValueError:
            is_busy, failures = True, failures + 1
            if failures == SILENT_POLLS:
                raise
        if is_busy:
            idle_since_s = None
        elif idle_since_s is None:
            idle_since_s = time.monotonic()
        elif time.monotonic() - idle_since_s > FILE_LIMIT_S:
            return
        time.sleep(POLL_S)
