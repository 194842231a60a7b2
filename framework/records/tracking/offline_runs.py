"""W&B's offline runs in the folder of a cell. Loads no wandb."""

from __future__ import annotations

from pathlib import Path


def offline_runs(folder: Path) -> int:
    """How many offline runs the cells of the sweep in `folder` have."""
    return sum(1 for _ in folder.glob("*/wandb/offline-run-*"))


def set_aside_offline_runs(folder: Path) -> None:
    """Rename the offline runs of earlier tries, so that `wandb sync .../offline-run-*` sends one run for the cell.

    Their ids are the same, and W&B would mix the points of two tries into one run.
    """
    for path in folder.glob("wandb/offline-run-*"):
        path.rename(path.with_name(f"superseded-{path.name}"))
