"""`hydra/sweeper=search` and `pareto`: Optuna chooses the cells by the records of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from framework.app.launching.axes import read_axes, values
from framework.app.launching.ending import objectives, settle
from framework.app.launching.folder import claim
from framework.app.launching.inputs import check_inputs, read_inputs, without_paths
from framework.app.launching.jobs import compose_cell, key_override, new_sweep
from framework.app.launching.presets import freeze_presets
from framework.app.launching.resume_key import NO_INFLUENCE, framework_hash, plugin_hashes
from framework.app.launching.search.objective import check_measured, find_directions
from framework.app.launching.search.study import distribution, failed, open_study, write_result
from framework.app.launching.sweep_file import Cell, live_sweep
from framework.config.explain import explain


class SearchSweeper(Sweeper):
    """Asks Optuna for values, runs a cell with them, and tells Optuna the metrics of its record.

    A cell that does not complete, or whose metric is undefined, is a failed trial, and the search goes on. Works with
    any launcher. Keys: `framework.app.launching.settings.SearchSettings`.
    """

    def __init__(
        self,
        params: dict[str, str],
        n_trials: int,
        n_jobs: int,
        direction: Any,
        sampler: DictConfig,
        storage: str | None,
        study_name: str | None,
        dry_run: bool,
    ) -> None:
        for name, value in (("n_trials", n_trials), ("n_jobs", n_jobs)):
            if value < 1:
                raise ValueError(f"hydra.sweeper.{name}={value}: must be at least 1")
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.sampler, self.storage, self.study_name = sampler, storage, study_name
        self.dry_run = dry_run
        self.hydra_context: HydraContext
        self.config: DictConfig
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run every trial and say which were best.

        Raises:
            ValueError: no objective, or one without a direction; nothing to search over; a stored study that asked
                something else. No cell has run then.
        """
        names = [str(name) for name in self.config.objective]
        directions = find_directions(names, self.direction, self.config.metrics.percentiles)
        freeze_presets(self.hydra_context.config_loader)
        axes = read_axes(self.config, arguments, self.hydra_context.config_loader)
        space = {key: found for key, override in axes.items() if (found := distribution(override)) is not None}
        if not space:
            raise ValueError("a search needs an axis of values, such as 'engine.max_num_seqs=int(interval(8,256))'")
        fixed = [text for key, override in axes.items() if key not in space for text in values(override)]
        levels = self._compose_levels(axes)
        check_measured(names, levels[0])
        check_inputs(levels)
        if self.dry_run:
            print(f"{self.n_trials} trials, {', '.join(f'{way} {name}' for name, way in directions.items())}, over:")
            print("\n".join(f"  {axes[key].input_line}" for key in space))
            print("dry run: nothing was run or written")
            return
        first = without_paths(levels[0], read_inputs(levels[0]))
        begun = content_hashes(levels)
        asked = {
            "objective": directions,
            "axes": {key: str(axes[key].input_line) for key in space},
            "fixed": {key: value for key, value in first.items() if key not in NO_INFLUENCE},
            **begun,
        }
        study = open_study(asked, self.sampler, self.storage, self.study_name)
        sweep = new_sweep(self.config)
        claim(sweep.folder)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        sweep.write()
        keys = {key: str(axes[key].get_key_element()) for key in space}
        problem = ""
        for begin in range(0, self.n_trials, self.n_jobs):
            if content_hashes(levels) != begun:
                problem = (
                    f"sources or input files changed after {begin} trials, and those of two versions cannot be ranked"
                )
                break
            trials = {}
            try:
                for number in range(begin, min(begin + self.n_jobs, self.n_trials)):
                    trials[number] = study.ask(space)
                    trials[number].set_user_attr("folder", str(sweep.folder / str(number)))
                chosen = {n: [f"{keys[key]}={value}" for key, value in t.params.items()] for n, t in trials.items()}
                self._launch({number: [*fixed, *own] for number, own in chosen.items()}, sweep.folder)
                for number in list(trials):
                    try:
                        study.tell(trials[number], objectives(sweep.folder / str(number), names))
                        del trials[number]
                    except ValueError as error:
                        trials[number].set_user_attr("reason", str(error))
            finally:
                for trial in trials.values():  # whatever happened, none stays open in a storage
                    study.tell(trial, state=failed())
        sweep = live_sweep(sweep.folder) or sweep
        sweep.problem = "; ".join(filter(None, (problem, write_result(study, directions, sweep.folder))))
        sweep.write()

    def _launch(self, cells: Mapping[int, list[str]], folder: Path) -> None:
        """Run the cells that compose; one with a key that its choices lack gets its record, as skipped, here."""
        to_run = []
        for number, overrides in cells.items():
            config = compose_cell(self.hydra_context, self.config, overrides)
            if not isinstance(config, Exception):
                to_run.append([*overrides, f"hydra.sweep.subdir={number}", key_override(config)])
                continue
            own = list(filter_overrides(overrides))
            status, reason = settle(folder / str(number), {"overrides": own}, "", explain(config), "skipped")
            sweep = live_sweep(folder)
            assert sweep is not None
            sweep.cells.append(Cell(folder=str(number), overrides=own, status=status, reason=reason))
            sweep.write()
        if to_run:
            self.launcher.launch(to_run, initial_job_idx=min(cells))

    def _compose_levels(self, axes: Mapping[str, Override]) -> list[dict[str, Any]]:
        """Compose each value of each axis beside the first ones of the others, so that a typing mistake is found now.

        Returns those of these configurations in which every key exists.
        """
        levels = {key: values(override) for key, override in axes.items()}
        corner = {key: level[0] for key, level in levels.items()}
        cells = [list(corner.values())]
        cells += [list({**corner, key: value}.values()) for key, level in levels.items() for value in level[1:]]
        composed = [compose_cell(self.hydra_context, self.config, cell) for cell in cells]
        good = [config for config in composed if not isinstance(config, Exception)]
        if not good:
            assert isinstance(composed[0], Exception)
            raise composed[0]
        return good


def content_hashes(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """`sources` and `inputs` of these cells by their roles, each with the hashes that it has in any of them."""
    found: dict[str, dict[str, set[str]]] = {"sources": {"framework": {framework_hash()}}, "inputs": {}}
    for config in cells:
        for role, code in plugin_hashes(config).items():
            found["sources"].setdefault(role, set()).add(code)
        for role, about in read_inputs(config).items():
            found["inputs"].setdefault(role, set()).add(str(about["sha256"]))
    return {part: {role: sorted(hashes) for role, hashes in roles.items()} for part, roles in found.items()}
