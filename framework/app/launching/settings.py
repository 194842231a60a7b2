"""The typed keys of `hydra.launcher` and `hydra.sweeper`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

HYDRA_MODULE = "hydra_plugins.servelab"


@dataclass
class ProcessSettings:
    """`hydra/launcher=process`: a process per cell."""

    _target_: str = f"{HYDRA_MODULE}.ProcessLauncher"
    gpus_per_cell: int | None = None
    """The GPUs that a cell gets for itself. null takes what its executor asks for, or 0 on a machine without GPUs."""
    max_parallel: int | None = None
    """How many cells run at once. null runs as many as there are GPUs for, and one at a time of cells without a GPU."""
    timeout_s: float | None = None
    """The time limit of a cell. A cell that runs longer is killed and recorded as failed. null sets no limit."""
    order: str = "random"
    """random keeps a drift of the machine from coinciding with a factor. given takes the order of the command line."""
    order_seed: int = 0


@dataclass
class InProcessSettings:
    """`hydra/launcher=in_process`: all cells run in this process, and weights are loaded once."""

    _target_: str = f"{HYDRA_MODULE}.InProcessLauncher"
    order: str = "random"
    order_seed: int = 0


@dataclass
class GridSettings:
    """`hydra/sweeper=grid`: every combination. One that does not compose costs only itself."""

    _target_: str = f"{HYDRA_MODULE}.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)
    """The axes of a study, as on the command line: `{scheduler: "a,b", seed: "range(5)"}`."""
    arms: dict[str, list[str]] = field(default_factory=dict)
    """One more axis, each value of which is a name for several overrides; it is recorded as `study.arm`."""
    resume: bool = False
    """Run only the cells that have no completed record in hydra.sweep.dir. `resume=DIR` sets both."""
    dry_run: bool = False
    """List the cells and run none. `--dry-run` sets it."""


@dataclass
class SamplerSettings:
    """How Optuna chooses."""

    name: str = "tpe"
    """The sampler: tpe, nsgaii, random or qmc."""
    seed: int | None = 0
    """The seed of the sampler. null draws another one each time."""
    population_size: int | None = None
    """The population of nsgaii. null is Optuna's 50."""


@dataclass
class SearchSettings:
    """`hydra/sweeper=search`: Optuna looks for the best value of one metric, or for the trade-offs between several.

    python run.py -m hydra/sweeper=search objective=[ttft_s/p99] 'engine.max_num_seqs=int(tag(log,interval(8,256)))' ...
    """

    _target_: str = f"{HYDRA_MODULE}.SearchSweeper"
    params: dict[str, str] = field(default_factory=dict)
    """The keys to search over, as on the command line: choices, ranges and intervals."""
    n_trials: int = 30
    n_jobs: int = 1
    """How many trials are asked for and launched together."""
    direction: Any = None
    """maximize or minimize, for all metrics of `objective` or as a list. null takes what is better by its name."""
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    storage: str | None = None
    """The URL of a database that keeps the trials, such as sqlite:///search.db. null forgets them at the end."""
    study_name: str | None = None
    """The name under which `storage` keeps the trials. The same name goes on from them, if the search is the same."""
    dry_run: bool = False
    """Say what would be searched and run nothing. `--dry-run` sets it."""


@dataclass
class CapacitySettings(GridSettings):
    """`hydra/sweeper=capacity`: in each cell, the highest load at which enough requests meet their objectives.

    python run.py -m hydra/sweeper=capacity slo.ttft_s=1 workload=synthetic workload.arrival=poisson scheduler=mlfq,fair
    """

    _target_: str = f"{HYDRA_MODULE}.CapacitySweeper"
    load: str = "workload.rate_per_s"
    """What is raised: workload.rate_per_s, or workload.max_concurrency for a closed load."""
    goal: float = 0.9
    """The share of all requests that have to meet every objective (`slo.*`). 0.99 with slo.ttft_s=1 alone asks for a
    99th percentile of the TTFT of at most 1 s."""
    tolerance: float = 0.05
    """The search ends when the lowest load that misses the goal is at most this share above the highest that meets
    it."""
    repeats: int = 3
    """How many seeds each load is run with: those from `seed` on. Their requests are pooled."""
    start: float = 1.0
    """The first load."""
    lowest: float = 0.01
    """The search gives up if this load misses the goal."""
    highest: float = 10_000.0
    """The search gives up if this load meets the goal."""


def store_settings() -> None:
    """Put the settings where Hydra looks for the options of its groups. May be repeated."""
    store = ConfigStore.instance()
    options: tuple[tuple[str, str, Any], ...] = (
        ("hydra/launcher", "process", ProcessSettings),
        ("hydra/launcher", "in_process", InProcessSettings),
        ("hydra/sweeper", "grid", GridSettings),
        ("hydra/sweeper", "search", SearchSettings),
        ("hydra/sweeper", "capacity", CapacitySettings),
    )
    for group, name, node in options:
        store.store(group=group, name=name, node=node, provider="servelab")
