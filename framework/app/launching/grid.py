"""`hydra/sweeper=grid`, the default: every combination of the axes. One that does not compose costs only itself."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from framework.app.launching.axes import read_axes, values
from framework.app.launching.ending import read_summary, settle
from framework.app.launching.folder import claim
from framework.app.launching.gpus import gpus_elsewhere
from framework.app.launching.inputs import check_inputs
from framework.app.launching.jobs import compose_cell, key_override, load_cell, new_sweep, subfolder
from framework.app.launching.presets import freeze_presets
from framework.app.launching.resume import Earlier
from framework.app.launching.resume_key import resume_key
from framework.app.launching.sweep_file import Cell, Sweep, read_sweep
from framework.config.explain import explain


class GridSweeper(Sweeper):
    """Composes every cell before the first one runs, and gives the launcher those that can and have to run.

    - A key that only some choices have (`scheduler=a,b scheduler.limit=3`) makes the other cells skipped. A key that no
      cell has, an unknown choice or a value of a wrong type ends the sweep at once, as a typing mistake.
    - With `resume`, cells that have a completed record are left out; the others run in the folder that they had.

    Works with any launcher. Keys: `framework.app.launching.settings.GridSettings`.
    """

    def __init__(self, params: dict[str, str], arms: dict[str, list[str]], resume: bool, dry_run: bool) -> None:
        self.arms, self.resume, self.dry_run = (
            arms,
            resume,
            dry_run,
        )  # params are read from the configuration, unresolved
        self.hydra_context: HydraContext
        self.config: DictConfig
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run every cell and return what the launcher says of them.

        Raises:
            ValueError: the folder holds another sweep's records, or an axis is an interval or has no value.
        """
        freeze_presets(self.hydra_context.config_loader)
        if self.dry_run:
            self.list_cells(self._grid(arguments))
            return []
        cells = [
            (overrides, compose_cell(self.hydra_context, self.config, overrides)) for overrides in self._grid(arguments)
        ]  # makes no folder yet
        illegal = [config for _, config in cells if isinstance(config, Exception)]
        if len(illegal) == len(cells):
            raise illegal[0]
        if any(text.lstrip("+~").startswith("hydra.sweep.subdir=") for text in self.config.hydra.overrides.hydra):
            raise ValueError(
                "hydra.sweep.subdir: a cell's folder is its number, by which resume knows it; leave it out"
            )
        check_inputs(config for _, config in cells if not isinstance(config, Exception))
        sweep = new_sweep(self.config)
        claim(sweep.folder, resume=self.resume)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        to_run = _sort_out(cells, sweep, Earlier(sweep.folder))
        sweep.write()
        if not to_run:
            return []
        try:
            return self.launcher.launch(to_run, initial_job_idx=0)
        except Exception as error:
            if not self._account(sweep.folder, to_run, error):
                raise
            return []

    def list_cells(self, grid: list[list[str]]) -> None:
        """Say what would become of each cell.

        Raises:
            HydraException, OmegaConfBaseException: no cell composes.
        """
        from framework.app.launching.display.dry_run import earlier_of, print_outlook

        cells = [(overrides, load_cell(self.hydra_context, self.config, overrides)) for overrides in grid]
        errors = [cell for _, cell in cells if isinstance(cell, Exception)]
        if len(errors) == len(cells):
            raise errors[0]
        earlier = earlier_of(new_sweep(self.config).folder) if self.resume else None
        gpus_per_cell = self.config.hydra.launcher.get("gpus_per_cell")
        elsewhere = gpus_elsewhere(self.config.hydra)
        print_outlook(cells, gpus_per_cell=gpus_per_cell, elsewhere=elsewhere, earlier=earlier)

    def _account(self, folder: Path, launched: list[list[str]], error: Exception) -> bool:
        """Write the records that cells of a launcher that gave up (Ray and submitit do, when one of their workers dies)
        did not write. False if there is none at all, so that the error is all there is to say."""
        accounted = {cell.folder for cell in (read_sweep(folder) or Sweep(folder=folder)).cells}
        folders = {subfolder(overrides, 0): overrides for overrides in launched}
        begun = [name for name in folders if name not in accounted and read_summary(folder / name) is not None]
        if not begun:
            return False
        reason = f"no record when the launcher gave up: {type(error).__name__}: {' '.join(str(error).split())}"
        for name, overrides in folders.items():
            if name not in accounted:
                config = compose_cell(self.hydra_context, self.config, overrides)
                assert isinstance(config, dict)
                settle(folder / name, config, resume_key(config), reason)
        return True

    def _grid(self, arguments: list[str]) -> list[list[str]]:
        axes = read_axes(self.config, arguments, self.hydra_context.config_loader)
        for override in axes.values():
            if override.is_interval_sweep():
                raise ValueError(
                    f"{override.input_line}: a grid has no intervals; list values, such as range(8,65,8), or set "
                    "hydra/sweeper=search to let Optuna choose"
                )
        levels = {key: values(override) for key, override in axes.items()}
        if empty := [str(axes[key].input_line) for key, level in levels.items() if not level]:
            raise ValueError(f"{empty[0]}: an axis has no value, so the sweep has no cell; range(5) has five")
        for name, arm in self.arms.items():
            for key in (text.partition("=")[0].lstrip("+~") for text in arm):
                if len(levels.get(key, ())) > 1:
                    raise ValueError(
                        f"{axes[key].input_line}: the study's arm {name} sets {key} itself, so that its cells would be "
                        f"the same for each value; give {key} one value"
                    )
        grid = [list(cell) for cell in itertools.product(*levels.values())]
        if not self.arms:
            return grid
        return [_merged(cell, [*arm, f"study.arm={name}"]) for name, arm in self.arms.items() for cell in grid]


def _merged(cell: list[str], arm: list[str]) -> list[str]:
    """Overrides of both; of a key that both have, the arm's, since Hydra takes a group once only."""
    own = {text.partition("=")[0] for text in arm}
    return [text for text in cell if text.partition("=")[0] not in own] + arm


def _sort_out(
    cells: list[tuple[list[str], dict[str, Any] | Exception]], sweep: Sweep, earlier: Earlier
) -> list[list[str]]:
    """Overrides of the cells to run, each with its folder; the others become cells of `sweep` here."""
    to_run = []
    for overrides, config in cells:
        own = list(filter_overrides(overrides))
        about = {"overrides": own} if isinstance(config, Exception) else config
        if earlier.completed(about) is not None:
            continue
        folder = earlier.folder_for(about, own)
        if isinstance(config, Exception):
            status, reason = settle(sweep.folder / folder, about, "", explain(config), "skipped")
            sweep.cells.append(Cell(folder=folder, overrides=own, status=status, reason=reason))
        else:
            to_run.append([*overrides, f"hydra.sweep.subdir={folder}", key_override(config)])
    sweep.cells += earlier.cells.values()
    return to_run
