"""`--dry-run`: what a sweep would run, without running any of it or writing a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from framework.app.launching.gpus import gpus_wanted, visible_gpus
from framework.app.launching.jobs import resolved
from framework.app.launching.resume import Earlier
from framework.config.check import check
from framework.config.explain import explain
from framework.execution.policies import build_policies
from framework.interfaces.errors import IncompatibleError
from framework.records.reasons import listed, once_per_reason
from framework.registry import EXECUTORS, WORKLOADS

KEY = "hydra.sweeper.dry_run"
FLAG = "--dry-run"
failing: list[str] = []
"""The reasons of the cells that would fail, as far as a dry run of this process found any."""


def outlook(cell: DictConfig | Exception) -> tuple[str, str]:
    """What would become of a composed cell, `runs`, `skipped` or `fails`, and why.

    The policies of every cell are built, and a simulated cell as a whole. Of others, what only the device can tell
    (attention, graphs, memory) stays open.
    """
    if isinstance(cell, Exception):
        return "skipped", explain(cell)
    cfg = OmegaConf.masked_copy(cell, [str(key) for key in cell if key != "hydra"])
    try:
        settings = check(cfg)
        build_policies(settings)
        workload = WORKLOADS.build(settings.workload)
        executor = EXECUTORS.build(settings.executor)
        if EXECUTORS.get(settings.executor.name).is_simulated and not (workload.has_text or workload.is_live):
            with closing(executor.build(settings).engine):
                pass
        else:
            executor.deployment(settings)
    except IncompatibleError as error:
        return "skipped", str(error)
    except Exception as error:  # noqa: BLE001 (a plugin may raise anything, and a run records it as failed)
        text = " ".join(str(error).split())
        return "fails", text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
    return "runs", ""


def print_outlook(
    cells: Iterable[tuple[Sequence[str], DictConfig | Exception]],
    *,
    gpus_per_cell: int | None = None,
    elsewhere: int | None = None,
    earlier: Earlier | None = None,
    console: Console | None = None,
) -> None:
    """Print a line per cell, and below the table each reason once.

    Args:
        gpus_per_cell: what the launcher was told; None asks the executor.
        elsewhere: GPUs that a cell finds on the other machine where it runs; None if cells run on this one, whose GPUs
            are then compared with what they need.
        earlier: what the folder of a resumed sweep has completed.
    """
    console = console or Console(soft_wrap=True)
    available = len(visible_gpus()) if elsewhere is None else elsewhere
    rows: list[tuple[str, str, str, int | None, list[str]]] = []
    for number, (overrides, cell) in enumerate(cells):
        what, reason = outlook(cell)
        gpus: int | None = None
        if isinstance(cell, DictConfig):
            config: Any = resolved(cell)
            gpus = gpus_wanted(config["executor"], available) if gpus_per_cell is None else gpus_per_cell
            if what == "runs" and earlier is not None and (place := earlier.completed(config)) is not None:
                what, reason = "is completed", f"in {earlier.folder / place}"
            elif what == "runs" and elsewhere is None and gpus > available:
                what, reason = "skipped", f"needs {gpus} GPUs, this machine has {available}"
        rows.append((str(number), what, reason, gpus, list(filter_overrides(overrides))))
    common = set.intersection(*(set(row[4]) for row in rows)) if len(rows) > 1 else set()
    counts = Counter(row[1] for row in rows)
    states = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    most = max((row[3] or 0 for row in rows), default=0)
    needs = f"up to {most} GPUs per cell" if most else "no GPU"
    needs += f", {available} here" if most and elsewhere is None else ""
    table = Table("cell", "", "GPUs", "overrides", title=f"{len(rows)} cells: {states}; {needs}", title_justify="left")
    for place, what, _, gpus, own in rows:
        differing = " ".join(text for text in own if text not in common)
        table.add_row(place, what, "" if gpus is None else str(gpus), differing.replace("[", "\\["))
    console.print(table, soft_wrap=False)
    if common:
        console.print(f"all cells: {' '.join(sorted(common))}", markup=False, highlight=False)
    for what in ("skipped", "fails"):
        for reason, names in once_per_reason((row[0], row[2]) for row in rows if row[1] == what):
            console.print(f"{what}: {listed(names)}: {reason}", markup=False, highlight=False)
    failing.extend(row[2] for row in rows if row[1] == "fails")
    console.print("dry run: nothing was run or written", highlight=False)


def earlier_of(folder: Path) -> Earlier | None:
    """The records of a sweep that is resumed; None for a new folder."""
    return Earlier(folder) if folder.is_dir() else None
