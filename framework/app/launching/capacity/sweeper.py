"""`hydra/sweeper=capacity`: in each cell of a grid, the highest load at which enough requests meet their objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf

from framework.app.launching.axes import bare_key, read_axes
from framework.app.launching.capacity.bracket import Outcome, Search, rounded
from framework.app.launching.capacity.result import UNITS, CellSearch, print_result, write_result
from framework.app.launching.ending import read_summary, settle
from framework.app.launching.folder import claim
from framework.app.launching.grid import GridSweeper
from framework.app.launching.inputs import check_inputs
from framework.app.launching.jobs import key_override, load_cell, new_sweep, resolved
from framework.app.launching.presets import freeze_presets
from framework.app.launching.resume import Earlier
from framework.app.launching.search.objective import has_objective
from framework.app.launching.search.sweeper import content_hashes
from framework.app.launching.sweep_file import Cell, Sweep, live_sweep
from framework.config.explain import explain
from framework.registry import EXECUTORS

_LEAST_TOLERANCE = 0.001


class CapacitySweeper(GridSweeper):
    """Doubles the load until fewer than `goal` of the requests meet their objectives, then bisects.

    All cells go on side by side: each round launches, for every cell that has not ended, `repeats` runs at its next
    load. A run is a cell of the sweep like any other, with a record. What to run next follows from the records alone,
    so that `resume` goes on where a search stopped. Works with any launcher. Keys:
    `framework.app.launching.settings.CapacitySettings`.
    """

    def __init__(
        self,
        params: dict[str, str],
        arms: dict[str, list[str]],
        resume: bool,
        dry_run: bool,
        load: str,
        goal: float,
        tolerance: float,
        repeats: int,
        start: float,
        lowest: float,
        highest: float,
    ) -> None:
        super().__init__(params, arms, resume, dry_run)
        whole = load == "workload.max_concurrency"
        for name, value, holds, limit in (
            ("load", load, load in UNITS, f"must be {' or '.join(UNITS)}"),
            ("goal", goal, 0 < goal <= 1, "must be above 0 and at most 1, such as 0.9 for 90 % of the requests"),
            ("tolerance", tolerance, _LEAST_TOLERANCE <= tolerance < 1, f"must be in [{_LEAST_TOLERANCE}, 1)"),
            ("repeats", repeats, repeats >= 1, "must be at least 1"),
            ("lowest", lowest, lowest > 0, "must be above 0"),
            ("start", start, lowest <= start <= highest, f"must be in [lowest, highest] = [{lowest:g}, {highest:g}]"),
            ("highest", highest, highest < float("inf"), "must be finite"),
        ):
            if not holds:
                raise ValueError(f"hydra.sweeper.{name}={value} {limit}")
        lowest, start, highest = (rounded(whole, value) for value in (lowest, start, highest))
        self.key, self.repeats = load, repeats
        self._composed: dict[int, DictConfig] = {}
        """The configuration of each cell, at the load that its workload has without the search."""
        self.search = Search(
            goal=goal, tolerance=tolerance, start=start, lowest=lowest, highest=highest, is_whole=whole
        )

    def sweep(self, arguments: list[str]) -> None:
        """Find the capacity of each cell, and write `capacity.json`.

        Raises:
            ValueError: a cell has no such load or no objective, or its repeats would be one and the same run. No cell
                has run then.
        """
        freeze_presets(self.hydra_context.config_loader)
        self._free_the_load(arguments)
        cells = [CellSearch(overrides=overrides) for overrides in self._grid(arguments)]
        first = [load_cell(self.hydra_context, self.config, cell.overrides) for cell in cells]
        self._composed = {id(c): one for c, one in zip(cells, first, strict=True) if isinstance(one, DictConfig)}
        if not self._composed:
            assert isinstance(first[0], Exception)
            raise first[0]
        configs = [resolved(one) for one in self._composed.values()]
        for cell, config in zip((c for c in cells if id(c) in self._composed), configs, strict=True):
            self._check(config)
            cell.slo = dict(config["slo"])
        if self.dry_run:
            self.list_cells([cell.overrides for cell in cells])
            print(
                f"each at several loads from {self.search.start:g} {UNITS[self.key]} on, {self.repeats} runs per load"
            )
            return
        check_inputs(configs)
        begun = content_hashes(configs)
        sweep = new_sweep(self.config)
        claim(sweep.folder, resume=self.resume)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        earlier = Earlier(sweep.folder)
        sweep.write()
        for cell, one in zip(cells, first, strict=True):
            if isinstance(one, Exception):
                self._skip(cell, one, sweep, earlier)
        problem = ""
        try:
            while wanted := [(cell, load) for cell in cells if (load := cell.following(self.search)) is not None]:
                if content_hashes(configs) != begun:
                    problem = "sources or input files changed, and loads of two versions say nothing of one limit"
                    break
                self._probe(wanted, earlier, sweep.folder)
        finally:
            sweep = live_sweep(sweep.folder) or sweep
            sweep.cells += earlier.cells.values()
            write_result(sweep.folder, self.key, self.search, cells)
            sweep.write()
        print_result(self.key, self.search, cells)
        if not problem and all(cell.problem or not cell.outcomes for cell in cells):
            problem = f"no cell has a capacity; the first one: {cells[0].problem}"
        sweep.problem = problem
        sweep.write()

    def _probe(self, wanted: Sequence[tuple[CellSearch, float]], earlier: Earlier, folder: Path) -> None:
        """Run what has no record yet of these cells at these loads, and note the outcomes."""
        places: list[list[str]] = []
        to_run = []
        for cell, load in wanted:
            places.append([])
            for overrides, config in self._runs(cell, load):
                place = earlier.completed(config)
                if place is None:
                    place = earlier.folder_for(config, list(filter_overrides(overrides)))
                    to_run.append([*overrides, f"hydra.sweep.subdir={place}", key_override(config)])
                places[-1].append(place)
        if to_run:
            try:
                self.launcher.launch(to_run, initial_job_idx=0)
            except Exception as error:
                if not self._account(folder, to_run, error):
                    raise
        for (cell, load), own in zip(wanted, places, strict=True):
            self._note(cell, load, own, folder)

    def _note(self, cell: CellSearch, load: float, places: list[str], folder: Path) -> None:
        met, total, kept_up = [], [], [1.0]
        for place in places:
            summary = read_summary(folder / place) or {"status": "failed", "reason": "it left no record"}
            share = (summary.get("metrics") or {}).get("slo_attainment")
            if summary["status"] != "completed" or share is None:
                why = summary["reason"] or "it has no slo_attainment"
                cell.problem = f"the run at {load:g} {UNITS[self.key]} in {place} {summary['status']}: {why}"
                return
            total.append(sum(int(summary["metrics"][f"requests_{end}"]) for end in _ENDS))
            met.append(round(share * total[-1]))
            if not self.search.is_whole:
                kept_up.append((summary["metrics"]["requests_per_s"] or 0) / load)
            elif load >= total[-1]:  # all requests are in the engine from the start
                kept_up.append(0.0)
        outcome = cell.outcomes[load] = Outcome(tuple(met), tuple(total), min(kept_up))
        cell.folders[load] = places
        verdict = "meets the goal" if outcome.reaches(self.search.goal) else "misses the goal"
        doubt = "" if outcome.is_certain(self.search.goal) else ", within noise"
        name = " ".join(cell.overrides)
        print(f"{name}: {load:g} {UNITS[self.key]}: {outcome.share:.1%} {verdict}{doubt}", flush=True)

    def _runs(self, cell: CellSearch, load: float) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Overrides and configuration of each repeat at a load. They differ in the seed."""
        composed = self._composed[id(cell)].copy()  # composing takes a hundred times as long as setting two values
        first_seed = int(composed.seed)
        value = round(load) if self.search.is_whole else load
        OmegaConf.update(composed, self.key, value)
        for seed in range(first_seed, first_seed + self.repeats):
            OmegaConf.update(composed, "seed", seed)
            rest = [text for text in cell.overrides if self.repeats == 1 or text.partition("=")[0] != "seed"]
            own = [] if self.repeats == 1 else [f"seed={seed}"]
            yield [*rest, f"{self.key}={value!r}", *own], resolved(composed)

    def _free_the_load(self, arguments: Sequence[str]) -> None:
        """Leave the load to the search: refuse it on the command line, and drop a study's axis of it."""
        axes = read_axes(self.config, arguments, self.hydra_context.config_loader)
        given = next((text for text in arguments if text.lstrip("+").partition("=")[0] == self.key), None)
        if given is not None:
            raise ValueError(
                f"{given}: hydra/sweeper=capacity chooses {self.key} itself; leave it out (hydra.sweeper.start says "
                "where the search begins)"
            )
        if self.key in self.config.hydra.sweeper.params:
            OmegaConf.set_readonly(self.config, False)
            OmegaConf.set_struct(self.config, False)
            values = self.config.hydra.sweeper.params.pop(self.key)
            print(f"note: hydra/sweeper=capacity chooses {self.key} itself, in place of the study's {values}")
        seeds = next((axis for axis in axes.values() if bare_key(axis) == "seed" and axis.is_sweep_override()), None)
        if seeds is not None and self.repeats > 1 and len(list(seeds.sweep_iterator())) > 1:
            raise ValueError(
                f"{seeds.input_line}: each load is run with {self.repeats} seeds already; give one seed "
                "and hydra.sweeper.repeats=5 for one capacity from five seeds, or hydra.sweeper.repeats=1 for a "
                "capacity of each seed"
            )

    def _check(self, config: Mapping[str, Any]) -> None:
        """Refuse a cell in which the search has no meaning."""
        workload, slo = config["workload"], config["slo"]
        name, key = workload["name"], self.key.rpartition(".")[2]
        if key not in workload:
            raise ValueError(
                f"hydra/sweeper=capacity raises {self.key}, and workload={name} has no such key; choose a workload "
                "that has one, such as synthetic, azure or mooncake, or set hydra.sweeper.load to another of "
                f"{', '.join(UNITS)}"
            )
        if key == "rate_per_s" and name == "sessions":
            raise ValueError(
                f"hydra/sweeper=capacity raises {self.key} in {UNITS[self.key]}, and workload=sessions takes it as "
                "sessions per second, each of several requests that wait for one another; choose a workload whose rate "
                "is that of its requests, such as synthetic, clients, azure or mooncake"
            )
        if key == "rate_per_s" and workload.get("arrival") == "all":
            raise ValueError(
                f"hydra/sweeper=capacity raises {self.key}, and workload.arrival=all sends every request at once, "
                "whatever the rate; set workload.arrival=poisson"
            )
        if not has_objective(config):
            raise ValueError(
                f"hydra/sweeper=capacity needs an objective: slo.ttft_s={slo['ttft_s'] or 'null'} slo.tpot_s=null "
                "slo.e2e_s=null say of no request whether it was served well; set one or more, such as slo.ttft_s=1 "
                "slo.tpot_s=0.05"
            )
        draws = workload.get("seed", 0) is None and workload.get("arrival") != "trace"
        if self.repeats > 1 and not draws and EXECUTORS.get(config["executor"]["name"]).is_simulated:
            fixed = (
                "workload.arrival=trace"
                if workload.get("arrival") == "trace"
                else f"workload.seed={workload.get('seed')}"
            )
            what = fixed if "seed" in workload else f"workload={name}"
            raise ValueError(
                f"hydra.sweeper.repeats={self.repeats}: {what} gives the same requests for every seed, so that repeats "
                "of a simulation would be one run; set hydra.sweeper.repeats=1"
            )

    def _skip(self, cell: CellSearch, error: Exception, sweep: Sweep, earlier: Earlier) -> None:
        """Record a cell that does not compose as skipped."""
        own = list(filter_overrides(cell.overrides))
        place = earlier.folder_for({"overrides": own}, own)
        status, reason = settle(sweep.folder / place, {"overrides": own}, "", explain(error), "skipped")
        sweep.cells.append(Cell(folder=place, overrides=own, status=status, reason=reason))
        sweep.write()
        cell.problem = f"skipped: {reason}"


_ENDS = ("completed", "rejected", "failed", "aborted")
