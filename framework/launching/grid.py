"""`hydra/sweeper=grid`, the default: every combination of the axes; one that does not compose costs itself only."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framework.config.explain import explain, is_unknown_key
from framework.launching.ending import settle
from framework.launching.folder import claim
from framework.launching.jobs import new_sweep, resolved
from framework.launching.resume import Earlier
from framework.launching.sweep_file import Cell


class GridSweeper(Sweeper):
    """Composes every cell before the first one runs, and hands to the launcher those that can and have to run.

    - A key that only some choices have (`scheduler=a,b scheduler.limit=3`) makes the other cells skipped. A key that no
      cell has, an unknown choice or a value of a wrong type ends the sweep at once, as a typing mistake.
    - With `resume`, cells that have a completed record are left out; the others run in the folder that they had.

    Works with any launcher. Keys: `framework.launching.settings.GridSettings`.
    """

    def __init__(self, params: dict[str, str] | None, resume: bool) -> None:
        self.params, self.resume = params or {}, resume
        self.hydra_context: HydraContext
        self.config: DictConfig
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run every cell, and return what the launcher says of them.

        Raises:
            ValueError: the folder holds another sweep's records.
        """
        axes = [f"{key}={values}" for key, values in self.params.items()] + arguments
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (grid,) = BasicSweeper.split_arguments(parser.parse_overrides(axes), None)
        cells = [(overrides, self._compose(overrides)) for overrides in grid]  # before there is a folder
        illegal = [config for _, config in cells if isinstance(config, Exception)]
        if len(illegal) == len(cells):
            raise illegal[0]
        sweep = new_sweep(self.config)
        claim(sweep.folder, resume=self.resume)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        earlier = Earlier(sweep.folder)
        to_run = []
        for overrides, config in cells:
            about = {"overrides": list(filter_overrides(overrides))} if isinstance(config, Exception) else config
            cell = Cell(folder=earlier.completed(about) or "", overrides=list(filter_overrides(overrides)))
            if cell.folder:
                cell.status, cell.reused = "completed", True
                sweep.cells.append(cell)
                continue
            cell.folder = earlier.folder_for(about)
            if isinstance(config, Exception):
                settled = settle(sweep.folder / cell.folder, about, "", explain(config), "skipped")
                cell.status, cell.reason = settled
                sweep.cells.append(cell)
            else:
                to_run.append([*overrides, f"hydra.sweep.subdir={cell.folder}"])
        sweep.write()
        return self.launcher.launch(to_run, initial_job_idx=0) if to_run else []

    def _compose(self, overrides: list[str]) -> dict[str, Any] | Exception:
        """The configuration of a cell; an error if it is one that other cells need not have."""
        try:
            return resolved(self.hydra_context.config_loader.load_sweep_config(self.config, overrides))
        except (HydraException, OmegaConfBaseException) as error:
            if not is_unknown_key(error):
                raise
            return error
