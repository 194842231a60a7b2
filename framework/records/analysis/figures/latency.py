"""Distributions of latency over requests, from the rows of the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from framework.records.analysis.cells import Cell, Damaged
from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_figure
from framework.records.analysis.figures.rows import read_columns
from framework.records.analysis.figures.style import FAINT, INK, colors, legend, lines_of, new_figure
from framework.records.metrics.summary import COMPLETED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ["arrival_s", "first_token_s", "finish_s", "num_output_tokens", "finish_reason"]
_PANELS = (("ttft_s", "time to first token (s)"), ("tpot_s", "time per output token (s)"), ("e2e_s", "end to end (s)"))
_QUANTILES = np.linspace(0.0, 1.0, 401)


def draw(comparison: Comparison) -> Figure | None:
    """TTFT, TPOT and E2E as cumulative shares, the requests of all seeds of a group together; None without requests."""
    groups, rest = lines_of(comparison)
    return draw_lines([(group.label, group.cells) for group in groups], rest, comparison.damaged)


def draw_lines(
    lines: Sequence[tuple[str, Sequence[Cell]]], rest: str = "", damaged: list[Damaged] | None = None
) -> Figure | None:
    """The figure of these cells, a line for each label.

    Args:
        lines: label and cells.
        rest: says what is missing.
        damaged: gets the cells whose requests cannot be read.
    """
    damaged = [] if damaged is None else damaged
    found = {label: latencies(cells, damaged) for label, cells in lines}
    panels = [(name, label) for name, label in _PANELS if any(values[name].size for values in found.values())]
    if not panels:
        return None
    figure, axes = new_figure(1, len(panels), 3.9 * len(panels), 3.4, sharey=True)
    chosen = colors(list(found))
    for panel, (name, label) in zip(axes.flat, panels, strict=True):
        ends = [float(np.quantile(v[name], 0.99)) for v in found.values() if v[name].size]
        starts = [float(np.quantile(v[name], 0.05)) for v in found.values() if v[name].size]
        for group_label, values in found.items():
            if values[name].size:
                x = np.quantile(values[name], _QUANTILES)
                panel.plot(x, _QUANTILES, color=chosen[group_label], linewidth=1.5, label=for_figure(group_label))
        if min(starts) > 0 and max(ends) / min(starts) > 30:
            panel.set_xscale("log")
        panel.axhline(0.99, color=FAINT, linewidth=0.8, linestyle=":")
        panel.set_xlabel(label, fontsize=8, color=INK)
    axes.flat[0].set_ylabel("share of requests" + (f" ({rest})" if rest else ""), fontsize=8, color=INK)
    legend(figure, axes.flat[0])
    return figure


def latencies(cells: Sequence[Cell], damaged: list[Damaged]) -> dict[str, np.ndarray]:
    """`ttft_s`, `tpot_s`, `e2e_s` of the completed requests of `cells`, as defined in `records.metrics.latency`."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name, _ in _PANELS}
    for cell in cells:
        table = read_columns(cell.requests, _COLUMNS, damaged)
        if table is None:
            continue
        table = table.filter(pc.is_in(table["finish_reason"], value_set=_strings(COMPLETED)))
        arrival_s, first_s, finish_s, tokens = (
            table[name].to_numpy().astype(np.float64) for name in _COLUMNS[:4]
        )  # a missing first token becomes NaN
        with np.errstate(divide="ignore", invalid="ignore"):
            tpot_s = np.where(tokens > 1, (finish_s - first_s) / (tokens - 1), np.nan)
        for name, values in (("ttft_s", first_s - arrival_s), ("tpot_s", tpot_s), ("e2e_s", finish_s - arrival_s)):
            parts[name].append(values[np.isfinite(values)])
    return {name: np.concatenate(values) if values else np.empty(0) for name, values in parts.items()}


def _strings(values: Sequence[str]) -> object:
    import pyarrow as pa

    return pa.array(values)
