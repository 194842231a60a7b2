"""Means of every group with their intervals, and the single seeds behind them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_figure
from framework.records.analysis.figures.style import FAINT, INK, PALETTE, new_figure
from framework.records.analysis.labels import label
from framework.records.analysis.tables import TOO_FEW

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BARS = 40
_LEAST_WIDTH, _LETTERS = 6.5, 14
"""Inches, and letters of the small print per inch."""
_COLORS = {"baseline": "#52606d", "better": PALETTE[2], "worse": PALETTE[3], "differs": PALETTE[1]}


def draw(comparison: Comparison) -> Figure | None:
    """A panel per metric; None if a single group leaves nothing to compare."""
    if len(comparison.groups) < 2:
        return None
    groups = comparison.groups[:MAX_BARS]
    names = [for_figure(group.label) for group in groups]
    num_columns = min(3, len(comparison.metrics))
    num_rows = -(-len(comparison.metrics) // num_columns)
    height = num_rows * (0.9 + 0.24 * len(groups))
    width = max(3.9 * num_columns, _LEAST_WIDTH)
    figure, axes = new_figure(num_rows, num_columns, width, height, sharey=True)
    for panel, metric in zip(axes.flat, comparison.metrics, strict=False):
        axis = label(metric)
        for row in comparison.of(metric):
            if row.group not in groups:
                continue
            at = groups.index(row.group)
            panel.barh(at, row.mean.value * axis.scale, height=0.66, color=_COLORS.get(row.mark, "#cbd2d9"))
            singles = [cell.metrics[metric] * axis.scale for cell in row.group.cells if metric in cell.metrics]
            panel.plot(singles, [at] * len(singles), "|", color=INK, markersize=7, alpha=0.35)
            if row.mean.low is not None:
                edges = [edge * axis.scale for edge in (row.mean.low, row.mean.high) if edge is not None]
                panel.plot(edges, [at, at], color=INK, linewidth=1.6)
        few = f" {TOO_FEW}" if any(row.few is not None for row in comparison.of(metric)) else ""
        panel.set_title(for_figure(axis.title + few), fontsize=9, color=INK, loc="left")
        panel.set_yticks(range(len(names)), names)
        panel.grid(visible=False, axis="y")
        panel.margins(y=0.02)
        panel.locator_params(axis="x", nbins=5)
    axes.flat[0].invert_yaxis()  # shared: the first group on top of every panel
    for panel in axes.flat[len(comparison.metrics) :]:
        panel.set_visible(False)
    is_thin = any(row.few is not None for row in comparison.rows)
    thin = f"; {TOO_FEW}: percentile of too few values" if is_thin else ""
    rest = f"; the first {MAX_BARS} of {len(comparison.groups)} groups" if len(comparison.groups) > MAX_BARS else ""
    legend = (
        "dark: baseline; green, red: better, worse; grey: not told from noise; line: 95 % interval; "
        f"ticks: single cells{thin}{rest}"
    )
    figure.supxlabel(textwrap.fill(legend, int(_LETTERS * width)), fontsize=8, color=FAINT)
    return figure
