"""Metrics against a numeric key: hit rate against capacity, latency against load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.records.analysis.cells import Cell
from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_figure
from framework.records.analysis.figures.style import FAINT, INK, MAX_LINES, colors, legend, new_figure
from framework.records.analysis.grouping import make_groups
from framework.records.analysis.labels import key_label, label
from framework.records.analysis.observations import observed
from framework.records.analysis.statistics import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPACITY = "engine.num_blocks"
HIT_RATES = ("prefix_cache_hit_rate", "block_hit_rate")
BOUND = "belady"
MIN_POINTS = 3


def numeric_keys(comparison: Comparison) -> list[str]:
    """The compared keys whose values are all numbers, three of them at least."""
    found = []
    for key in comparison.by:
        values = {group.values[key] for group in comparison.groups}
        if len(values) >= MIN_POINTS and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            found.append(key)
    return found


def draw(comparison: Comparison, key: str, metrics: Sequence[str]) -> Figure | None:
    """A panel per metric, with a line for each combination of the other compared keys and a band for its interval.

    What is Belady's, whether an eviction policy or a metric of that name, is drawn as the bound: dashed, in black. It
    sees the future; on blocks that stand alone no policy hits more often.
    """
    metrics = [metric for metric in metrics if any(metric in cell.metrics for cell in comparison.cells)]
    if not metrics:
        return None
    others = [other for other in comparison.by if other != key]
    lines = make_groups([cell for group in comparison.groups for cell in group.cells], others)
    is_bound = [any(value == BOUND for value in line.values.values()) for line in lines]
    kept = [line for line, bound in zip(lines, is_bound, strict=True) if not bound][:MAX_LINES]
    left_out = len(lines) - sum(is_bound) - len(kept)
    chosen = colors([line.name for line in kept])
    num_columns = min(3, len(metrics))
    num_rows = -(-len(metrics) // num_columns)
    axis = [label(metric) for metric in metrics]
    figure, axes = new_figure(num_rows, num_columns, 4.6 * num_columns, 3.3 * num_rows + 0.4)
    for panel, metric, own in zip(axes.flat, metrics, axis, strict=False):
        for line in kept:
            x, y, low, high = _line(line.cells, key, metric, comparison.seeds, own.scale)
            name = for_figure(line.label) if others else "all cells"
            panel.plot(x, y, "o-", color=chosen[line.name], markersize=3.5, linewidth=1.5, label=name)
            if all(edge is not None for edge in [*low, *high]):
                panel.fill_between(x, low, high, color=chosen[line.name], alpha=0.15, linewidth=0)
        for line, bound in zip(lines, is_bound, strict=True):
            if bound:
                x, y, *_ = _line(line.cells, key, metric, comparison.seeds, own.scale)
                panel.plot(x, y, "k--", linewidth=1.3, label=for_figure(f"{line.label} (bound)"))
        if metric in HIT_RATES:
            for name in dict.fromkeys(m for cell in comparison.cells for m in cell.metrics if BOUND in m):
                x, y, *_ = _line(comparison.cells, key, name, comparison.seeds)
                panel.plot(x, y, "k--", linewidth=1.3, label=for_figure(f"{name} (bound)"))
        values = sorted({float(str(group.values[key])) for group in comparison.groups})
        if values[0] > 0 and values[-1] / values[0] >= 8:
            panel.set_xscale("log")
            panel.set_xticks(values, [f"{value:g}" for value in values], rotation=0 if len(values) < 7 else 30)
            panel.minorticks_off()
        panel.set_title(for_figure(own.title), fontsize=9, color=INK, loc="left")
        panel.set_xlabel(for_figure(key_label(key)), fontsize=8, color=INK)
    for panel in axes.flat[len(metrics) :]:
        panel.set_visible(False)
    if left_out:
        figure.suptitle(f"{left_out} more lines are not drawn; choose fewer keys with --by", fontsize=8, color=FAINT)
    legend(figure, axes.flat[0])
    return figure


def _line(
    cells: Sequence[Cell], key: str, metric: str, seeds: Sequence[str], scale: float = 1.0
) -> tuple[list[float], list[float], list, list]:
    x, y, low, high = [], [], [], []
    for group in make_groups(cells, [key]):
        values = observed(group.cells, metric, seeds)
        if values:
            estimate = mean(values)
            x.append(float(str(group.values[key])))
            y.append(estimate.value * scale)
            low.append(None if estimate.low is None else estimate.low * scale)
            high.append(None if estimate.high is None else estimate.high * scale)
    return x, y, low, high
