"""Records as a table: one line each, completed or not, whether or not they can be compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from framework.records.analysis.cells import Cell, Damaged
from framework.records.analysis.columns import columns
from framework.records.analysis.escape import printable
from framework.records.analysis.grouping import Group, differing_keys, known_key, show
from framework.records.analysis.metric_names import check_metrics, show_number

_ALWAYS = ("model", "workload", "scheduler", "executor")
_METRICS = ("output_tokens_per_s", "ttft_s/p99", "tpot_s/mean", "slo_attainment")
_STYLES = {"completed": "", "failed": "red", "interrupted": "yellow", "skipped": "yellow"}


def print_runs(
    cells: Sequence[Cell],
    damaged: Sequence[Damaged],
    *,
    keys: Sequence[str] = (),
    metrics: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print a line for each of `cells`: folder, status, what tells them apart, and metrics.

    Args:
        cells: in the order of the table.
        damaged: named below it.
        keys: of the configuration; empty for model, workload, scheduler, executor and what differs, eight at most.
        metrics: empty for throughput, TTFT, TPOT and attainment, as far as they are defined.

    Raises:
        ValueError: an unknown key or metric.
    """
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=200, file=console.file)  # piped: do not fold at 80 columns
    shown = list(dict.fromkeys(known_key(key, cells) for key in keys)) or _keys(cells)
    known = {name for cell in cells for name in cell.metrics}
    names = check_metrics(metrics, cells) or [name for name in _METRICS if name in known]
    root = os.path.commonpath([cell.folder.absolute() for cell in cells])
    table = Table(title=Text(f"{len(cells)} records below {printable(root)}"), title_justify="left")
    for name in ("run", "status", *shown):
        table.add_column(Text(name), overflow="fold")
    for name in names:
        table.add_column(Text(name), justify="right")
    for cell in cells:
        place = printable(os.path.relpath(cell.folder.absolute(), root))
        values = [show(cell.keys[key]) if key in cell.keys else "-" for key in shown]
        numbers = [show_number(cell.metrics.get(name)) for name in names]
        texts = [place if place != "." else printable(Path(root).name), cell.status, *values, *numbers]
        table.add_row(*map(Text, texts), style=_STYLES.get(cell.status, ""))
    console.print(table)
    for cell in cells:
        if cell.reason:
            print_line(console, f"{cell.folder}: {cell.status}: {cell.reason}")
    for one in damaged:
        print_line(console, f"left out: {one}")
    if not keys and (hidden := [key for key in differing_keys(cells) if key not in shown]):
        few = ", ".join(hidden[:6]) + (", ..." if len(hidden) > 6 else "")
        print_line(console, f"{len(hidden)} more keys differ: {few}. Choose with --key, or see everything with --csv.")


def print_line(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _keys(cells: Sequence[Cell]) -> list[str]:
    """The keys that name a run, and those that tell these runs apart."""
    differing = differing_keys(cells)
    always = [key for key in _ALWAYS if any(key in cell.keys for cell in cells)]
    keys = [*always, *(key for key in differing if key not in always)]
    alone = [Group(values={key: cell.keys.get(key, "-") for key in keys}, cells=[cell]) for cell in cells]
    return columns(alone, keys)
