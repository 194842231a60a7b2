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
    """GPUs that a cell gets for itself; null: what its executor asks for, 0 on a machine without any."""
    max_parallel: int | None = None
    """Cells at once; null: as many as there are GPUs for, and of cells without a GPU one."""
    timeout_s: float | None = None
    """A cell that runs longer is killed and recorded as failed; null: no limit."""
    order: str = "random"
    """random: so that a drift of the machine does not coincide with a factor; given: as the command line counts."""
    order_seed: int = 0


@dataclass
class InProcessSettings:
    """`hydra/launcher=in_process`: all cells in this process, weights loaded once."""

    _target_: str = f"{HYDRA_MODULE}.InProcessLauncher"
    order: str = "random"
    order_seed: int = 0


@dataclass
class GridSettings:
    """`hydra/sweeper=grid`: every combination; one that does not compose costs itself only."""

    _target_: str = f"{HYDRA_MODULE}.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)
    """Axes of a study, as on the command line: `{scheduler: "a,b", seed: "range(5)"}`."""
    arms: dict[str, list[str]] = field(default_factory=dict)
    """One more axis, each value of which is a name for several overrides; it is recorded as `study.arm`."""
    resume: bool = False
    """Run only what has no completed record in hydra.sweep.dir; `resume=DIR` sets both."""


@dataclass
class SamplerSettings:
    """How Optuna chooses."""

    name: str = "tpe"
    """tpe, nsgaii, random or qmc."""
    seed: int | None = 0
    """null: another one each time."""
    population_size: int | None = None
    """The population of nsgaii. null is Optuna's 50."""


@dataclass
class SearchSettings:
    """`hydra/sweeper=search`: Optuna looks for the best value of one metric, or for the trade-offs between several.

    python run.py -m hydra/sweeper=search objective=[ttft_s/p99] 'engine.max_num_seqs=int(tag(log,interval(8,256)))' ...
    """

    _target_: str = f"{HYDRA_MODULE}.SearchSweeper"
    params: dict[str, str] = field(default_factory=dict)
    """What to search over, as on the command line: choices, ranges and intervals."""
    n_trials: int = 30
    n_jobs: int = 1
    """Trials that are asked for, and launched, together."""
    direction: Any = None
    """maximize or minimize, one for all metrics of `objective` or a list; null: what is better by the metric's name."""
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    storage: str | None = None
    """URL of a database, sqlite:///search.db, that keeps the trials; null: they are forgotten at the end."""
    study_name: str | None = None
    """Under which `storage` keeps them. The same name goes on from them, if the search is the same."""


def store_settings() -> None:
    """Put them where Hydra looks for the options of its groups. Idempotent."""
    store = ConfigStore.instance()
    options: tuple[tuple[str, str, Any], ...] = (
        ("hydra/launcher", "process", ProcessSettings),
        ("hydra/launcher", "in_process", InProcessSettings),
        ("hydra/sweeper", "grid", GridSettings),
        ("hydra/sweeper", "search", SearchSettings),
    )
    for group, name, node in options:
        store.store(group=group, name=name, node=node, provider="servelab")
