"""The cells of one batch, as the launchers of this package handle them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, filter_overrides, run_job
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from framework.app.launching.folder import claim
from framework.app.launching.resume_key import CELL_KEY, resume_key
from framework.app.launching.sweep_file import Cell, Sweep, here, live_sweep
from framework.config.explain import is_unknown_key


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
            ValueError: the folder is another sweep's.
        """
        claim(self.sweep_folder)
        return live_sweep(self.sweep_folder) or new_sweep(self.config)

    def add_jobs(self, sweep: Sweep, batch: Sequence[Sequence[str]], first_index: int) -> list[Job]:
        """A job, and a cell of `sweep`, for each list of overrides in `batch`."""
        jobs = []
        for index, overrides in enumerate(batch, first_index):
            cell = Cell(folder=subfolder(overrides, index), overrides=list(filter_overrides(overrides)))
            jobs.append(Job(index, list(overrides), cell))
        sweep.cells += [job.cell for job in jobs]
        sweep.write()
        return jobs


def new_sweep(config: DictConfig) -> Sweep:
    """A sweep without cells, from the composed configuration of a multirun."""
    hydra = config.hydra
    folder = Path(str(hydra.sweep.dir)).absolute()
    return Sweep(
        folder=folder,
        made_at=here(folder),
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


def compose_cell(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> dict[str, Any] | Exception:
    """The resolved configuration of a cell of the sweep `config`; the error if it is one that other cells need not
    have, a key that its choices lack."""
    composed = load_cell(context, config, overrides)
    return composed if isinstance(composed, Exception) else resolved(composed)


def load_cell(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig | Exception:
    """As `compose_cell`, with Hydra's part and unresolved."""
    try:
        return context.config_loader.load_sweep_config(config, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        if not is_unknown_key(error):
            raise
        return error


def key_override(config: Mapping[str, Any]) -> str:
    """Tells a cell the key that it has now, so that it can refuse to run with other sources or inputs later."""
    return f"hydra.job.env_set.{CELL_KEY}={resume_key(config)}"


def begun_key(composed: DictConfig, config: Mapping[str, Any]) -> str:
    """The key that a composed cell had when its sweep began; of another sweeper's cell, the one that it has now."""
    return str(composed.hydra.job.env_set.get(CELL_KEY) or resume_key(config))
