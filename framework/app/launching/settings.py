"""The typed keys of `hydra.launcher` and `hydra.sweeper`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

HYDRA_MODULE = "hydra_plugins.servelab"


@dataclass
class ProcessSettings:
    """`hydra/launcher=process`: a process a cell."""

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


def store_settings() -> None:
    """Put them where Hydra looks for the options of its groups. Idempotent."""
    store = ConfigStore.instance()
    options: tuple[tuple[str, str, Any], ...] = (
        ("hydra/launcher", "process", ProcessSettings),
        ("hydra/launcher", "in_process", InProcessSettings),
        ("hydra/sweeper", "grid", GridSettings),
    )
    for group, name, node in options:
        store.store(group=group, name=name, node=node, provider="servelab")
