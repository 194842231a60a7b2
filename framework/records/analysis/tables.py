"""A comparison as text: the same cells on the screen, in Markdown and on a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from framework.records.analysis.comparison import Comparison, Row
from framework.records.analysis.escape import for_markdown
from framework.records.analysis.grouping import show
from framework.records.analysis.metric_names import direction, show_number
from framework.records.analysis.statistics import MIN_SEEDS, Estimate
from framework.records.atomic import write_text

MARKS = {"noise": "≈ noise", "same": "= same", "few seeds": f"n < {MIN_SEEDS}", "unlike": "other requests"}
TOO_FEW = "†"
_PLAIN = re.compile(r"\[?[-+0-9.,e% †]*\]?|---")
"""Numbers and intervals, which need no escape in Markdown."""
_STYLES = {"better": "green", "worse": "red", "differs": "yellow", "baseline": "bold"}


def title(metric: str) -> str:
    """The metric, and whether more or less is better."""
    way = {1: "more is better", -1: "less is better", 0: ""}[direction(metric)]
    return f"{metric} ({way})" if way else metric


def header(comparison: Comparison) -> list[str]:
    """The columns of `cells`, the compared keys first."""
    return [*(comparison.shown or ["cells"]), "n", "mean", "95 % interval", "difference", "95 % interval", "effect", ""]


def cells(row: Row) -> list[str]:
    """One row as text."""
    keys = [show(value) for value in row.group.called.values()] or ["all"]
    difference = row.difference
    mark = MARKS.get(row.mark, row.mark)
    return [
        *keys,
        str(row.n),
        shown_mean(row),
        _interval(row.mean),
        "" if difference is None else _signed(difference.value),
        "" if difference is None else _interval(difference),
        "" if row.effect is None else f"{row.effect:+.1%}",
        f"{mark} (unpaired)" if row.test == "welch" else mark,
    ]


def shown_mean(row: Row) -> str:
    """The mean, with a sign after a percentile of too few values."""
    return show_number(row.mean.value) + ("" if row.few is None else f" {TOO_FEW}")


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """A table per metric, and then what has to be known to read them."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=160)  # piped: do not fold at 80 columns
    for metric in comparison.metrics:
        table = Table(title=Text(title(metric)), title_justify="left")
        for i, name in enumerate(header(comparison)):
            table.add_column(
                Text(name), overflow="fold", justify="left" if i < len(comparison.shown) or not name else "right"
            )
        for row in comparison.of(metric):
            table.add_row(*map(Text, cells(row)), style=_STYLES.get(row.mark))
        console.print(table)
    for line in remarks(comparison):
        style = "yellow" if line.startswith(("warning", "left out")) else None
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def remarks(comparison: Comparison) -> list[str]:
    """Warnings, notes, and the records that were left out, one per line."""
    lines = [f"warning: {text}" for text in comparison.warnings]
    if comparison.baseline:
        chosen = ", ".join(f"{key}={value}" for key, value in comparison.baseline.items() if key in comparison.shown)
        lines.append(f"Baseline: {chosen}. Effect: difference / mean of the baseline.")
    lines += comparison.notes
    lines += [f"left out: {cell.folder}: {cell.status}: {cell.reason}" for cell in comparison.not_completed]
    lines += [f"left out: {one}" for one in comparison.damaged]
    return lines


def markdown(comparison: Comparison) -> str:
    """A heading and a table per metric, then the remarks as a list."""
    parts = []
    for metric in comparison.metrics:
        lines = [_line(header(comparison)), _line(["---"] * len(header(comparison)))]
        lines += [_line(cells(row)) for row in comparison.of(metric)]
        parts.append(f"### {for_markdown(title(metric))}\n\n" + "\n".join(lines))
    parts.append("\n".join(f"- {for_markdown(line)}" for line in remarks(comparison)))
    return "\n\n".join(parts) + "\n"


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.csv` (all digits) and `comparison.md` (as on the screen) into `folder`; returns their paths."""
    csv, text = folder / "comparison.csv", folder / "comparison.md"
    write_text(csv, comparison.frame().to_csv(index=False))
    write_text(text, markdown(comparison))
    return [csv, text]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None:
        return ""
    return f"[{show_number(estimate.low)}, {show_number(estimate.high)}]"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + show_number(value)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text if _PLAIN.fullmatch(text) else for_markdown(text) for text in texts) + " |"
