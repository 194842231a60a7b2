"""The cells of one batch, as the launchers of this package handle them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from framework.app.launching.ending import objectives
from framework.app.launching.folder import claim
from framework.app.launching.sweep_file import Cell, Sweep, read_sweep
from framework.config.check import check_objective


@dataclass(slots=True)
class Job:
    """A cell to run: its number, Hydra's overrides, and its line in `sweep.json`."""

    index: int
    overrides: list[str]
    cell: Cell


@dataclass(slots=True)
class Setting:
    """What Hydra hands to a launcher."""

    context: HydraContext
    task: TaskFunction
    config: DictConfig

    @property
    def sweep_folder(self) -> Path:
        return Path(str(self.config.hydra.sweep.dir)).absolute()

    def compose(self, job: Job) -> DictConfig:
        """The configuration of `job`, Hydra's part included."""
        config = self.context.config_loader.load_sweep_config(self.config, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = job.index
            config.hydra.job.num = job.index
        return config

    def run(self, config: DictConfig) -> JobReturn:
        """Run a composed cell here."""
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def open_sweep(self) -> Sweep:
        """The sweep as the sweeper or an earlier batch left it, or a new one.

        Raises:
            ValueError: a search has no objective for each of its directions, or one that no run measures, or the
                folder is another sweep's.
        """
        _check_objective(self.config)
        claim(self.sweep_folder)
        return read_sweep(self.sweep_folder) or new_sweep(self.config)

    def add_jobs(self, sweep: Sweep, batch: Sequence[Sequence[str]], first_index: int) -> list[Job]:
        """A job, and a cell of `sweep`, for each list of overrides in `batch`."""
        jobs = []
        for index, overrides in enumerate(batch, first_index):
            cell = Cell(folder=subfolder(overrides, index), overrides=list(filter_overrides(overrides)))
            jobs.append(Job(index, list(overrides), cell))
        sweep.cells += [job.cell for job in jobs]
        sweep.write()
        return jobs

    def job_return(self, job: Job, config: dict[str, Any] | None) -> JobReturn:
        """What the sweeper learns of an ended job: the objectives from its record, if it is a search."""
        done = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)
        try:
            names = (config or {}).get("objective") or ()
            done.return_value = objectives(self.sweep_folder / job.cell.folder, names)
        except ValueError as error:
            done.status, done.return_value = JobStatus.FAILED, error
        return done


def _check_objective(config: DictConfig) -> None:
    """Of a search; without the check cells would run before it turns out that there is nothing to choose by."""
    check_objective(config.objective or (), config.metrics.percentiles)
    direction = config.hydra.sweeper.get("direction")
    if direction is None:
        return
    directions = list(direction) if OmegaConf.is_list(direction) else [direction]
    names = list(config.objective or ())
    if len(names) != len(directions):
        ways = ", ".join(getattr(way, "name", str(way)) for way in directions)
        raise ValueError(
            f"objective=[{','.join(names)}]: this search has {len(directions)} direction(s) ({ways}); name as many "
            "metrics, such as objective=[output_tokens_per_s]"
        )


def new_sweep(config: DictConfig) -> Sweep:
    """A sweep without cells, from the composed configuration of a multirun."""
    hydra = config.hydra
    return Sweep(
        folder=Path(str(hydra.sweep.dir)).absolute(),
        study=str(hydra.runtime.choices.get("experiment") or ""),
        launcher=str(hydra.runtime.choices.get("hydra/launcher")),
        arguments=[text for text in (*hydra.overrides.hydra, *hydra.overrides.task) if not _of_this_run(text)],
    )


def _of_this_run(override: str) -> bool:
    return override.startswith(("hydra.mode=", "hydra.sweep.dir=", "hydra.sweeper.resume="))


def subfolder(overrides: Sequence[str], index: int) -> str:
    """The folder of a cell below that of its sweep: its number, unless its overrides name another."""
    named = [text.partition("=")[2] for text in overrides if text.startswith("hydra.sweep.subdir=")]
    return named[-1] if named else str(index)


def resolved(config: DictConfig) -> dict[str, Any]:
    """The cell's configuration as plain values, without Hydra's part."""
    cell = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values: Any = OmegaConf.to_container(cell, resolve=True, enum_to_str=True)
    return dict(values)
