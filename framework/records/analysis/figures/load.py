"""Latency against load, as papers print it: one column wide, a line per policy, its limits and its knee."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from framework.records.analysis.cells import Cell
from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_figure
from framework.records.analysis.figures.style import FAINT, INK, MARKERS, MAX_LINES, colors, legend, new_figure
from framework.records.analysis.grouping import Group, make_groups
from framework.records.analysis.labels import key_label, label
from framework.records.analysis.observations import observed
from framework.records.analysis.statistics import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOADS = ("workload.rate_per_s", "workload.max_concurrency")
"""The keys that say how much is asked of an engine."""
MIN_POINTS = 3
COLUMN_INCHES = 3.4
"""The width of a column of most conferences, for which the letters are made."""
_LATENCIES = (("ttft_s/p99", "slo.ttft_s"), ("tpot_s/p99", "slo.tpot_s"))
_SHARE = "slo_attainment"
_LEAST_BEND, _LEAST_RISE = 0.15, 1.5


@dataclass(frozen=True, slots=True)
class _Point:
    x: float
    y: float
    low: float | None
    high: float | None


def load_key(comparison: Comparison) -> str | None:
    """The compared key of `LOADS` that has three values at least; None without one."""
    for key in LOADS:
        values = {value for group in comparison.groups if _is_number(value := group.values.get(key))}
        if len(values) >= MIN_POINTS:
            return key
    return None


def draw(comparison: Comparison, key: str, *, against_throughput: bool) -> Figure | None:
    """Panels below each other: p99 TTFT, p99 TPOT and the share of requests within their objectives.

    Each line is one combination of the other compared keys, its band the 95 % interval over seeds. A star is the knee
    (see `knee`). A dotted line is an objective (`slo.*`), where all cells have the same one.

    Args:
        key: of the load, which is the x axis.
        against_throughput: the x axis is the output throughput instead. Points are still joined in order of the load.
    """
    defined = {name for cell in comparison.cells for name in cell.metrics}
    panels = [(name, limit) for name, limit in _LATENCIES if name in defined]
    panels += [(_SHARE, "")] if _SHARE in defined and not against_throughput else []
    others = [other for other in comparison.by if other != key]
    lines = make_groups([cell for group in comparison.groups for cell in group.cells], others)
    if not panels or (against_throughput and "output_tokens_per_s" not in defined):
        return None
    kept = _merged(lines, key, [name for name, _ in panels], comparison.seeds)[:MAX_LINES]
    chosen = colors([name for name, _ in kept])
    figure, axes = new_figure(len(panels), 1, COLUMN_INCHES, 1.55 * len(panels) + 0.6, sharex=True)
    for panel, (metric, limit) in zip(axes.flat, panels, strict=True):
        axis = label(metric)
        for number, (name, cells) in enumerate(kept):
            points = list(_points(cells, key, metric, comparison.seeds, axis.scale, against_throughput))
            shown = for_figure(name) if others else "all cells"
            _draw_line(panel, points, chosen[name], MARKERS[number % len(MARKERS)], shown)
            if metric != _SHARE and (bend := knee([(p.x, p.y) for p in points])) is not None:
                at = points[bend]
                panel.plot(at.x, at.y, "*", color=chosen[name], markersize=10, markeredgecolor="white", zorder=4)
        if (value := _common(comparison.cells, limit)) is not None:
            panel.axhline(value * axis.scale, color=INK, linewidth=1, linestyle=":", label="objective")
        if metric == _SHARE:
            panel.set_ylim(-0.03, 1.03)
        elif (spread := _spread(panel)) > 20:
            _logarithmic(panel, (1.0, 3.0) if spread < 1000 else (1.0,))
        panel.set_ylabel(for_figure(axis.text), fontsize=7.5, color=INK)
        panel.tick_params(labelsize=7)
    along = label("output_tokens_per_s").text if against_throughput else key_label(key)
    axes.flat[-1].set_xlabel(for_figure(along), fontsize=7.5, color=INK)
    if len(lines) > MAX_LINES == len(kept):
        rest = f"the first {MAX_LINES} lines; choose fewer keys with --by"
        figure.suptitle(rest, fontsize=6.5, color=FAINT)
    axes.flat[0].plot([], [], "*", color=FAINT, markersize=8, label="knee")
    legend(figure, axes.flat[0], letters=52, size=7)
    return figure


def _merged(
    lines: Sequence[Group], key: str, metrics: Sequence[str], seeds: Sequence[str]
) -> list[tuple[str, list[Cell]]]:
    """Name and cells of each line. Lines that are the same in all panels are one, since one would hide the other."""
    found: dict[tuple[tuple[_Point, ...], ...], tuple[str, list[Cell]]] = {}
    for line in lines:
        same = tuple(tuple(_points(line.cells, key, metric, seeds, 1.0, False)) for metric in metrics)
        name, cells = found.get(same, ("", line.cells))
        found[same] = (f"{name} = {line.label}" if name else line.label, cells)
    return list(found.values())


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Where a rising curve begins to rise steeply: the index of the point furthest below the straight line between the
    ends, when both axes are scaled to [0, 1] (Satopaa et al., "Finding a 'Kneedle' in a Haystack", 2011).

    None with fewer than four points, and for a curve that rises by less than half or bends by less than 15 % of its
    height.
    """
    if len(points) < MIN_POINTS + 1:
        return None
    x, y = np.array(points, dtype=np.float64).T
    if np.ptp(x) <= 0 or y[-1] < _LEAST_RISE * y[0]:
        return None
    bend = (x - x.min()) / np.ptp(x) - (y - y.min()) / np.ptp(y)
    at = int(np.argmax(bend))
    return at if bend[at] >= _LEAST_BEND else None


def _points(
    cells: Sequence[Cell], key: str, metric: str, seeds: Sequence[str], scale: float, against_throughput: bool
) -> Iterator[_Point]:
    for group in make_groups([cell for cell in cells if _is_number(cell.keys.get(key))], [key]):
        values = observed(group.cells, metric, seeds)
        along = observed(group.cells, "output_tokens_per_s", seeds) if against_throughput else [group.values[key]]
        if values and along:
            one = mean(values)
            x = sum(float(str(value)) for value in along) / len(along)
            low, high = (None if edge is None else edge * scale for edge in (one.low, one.high))
            yield _Point(x, one.value * scale, low, high)


def _draw_line(panel: Axes, points: Sequence[_Point], color: str, marker: str, name: str) -> None:
    x, y = [p.x for p in points], [p.y for p in points]
    panel.plot(x, y, marker=marker, color=color, markersize=3.5, linewidth=1.2, label=name)
    inner = [p for p in points if p.low is not None and p.high is not None]
    if len(inner) > 1:
        panel.fill_between(
            [p.x for p in inner],
            [max(p.low or 0.0, min(y) / 2) for p in inner],
            [p.high or 0.0 for p in inner],
            color=color,
            alpha=0.15,
            linewidth=0,
        )


def _logarithmic(panel: Axes, digits: Sequence[float]) -> None:
    """A logarithmic y axis with plain numbers, only those that begin with `digits`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=digits))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _spread(panel: Axes) -> float:
    drawn = np.concatenate([np.ones(0), *(np.asarray(line.get_ydata(), np.float64) for line in panel.get_lines())])
    drawn = drawn[drawn > 0]
    return float(drawn.max() / drawn.min()) if drawn.size else 1.0


def _common(cells: Sequence[Cell], key: str) -> float | None:
    """The value of `key` if all cells have the same number."""
    values = {cell.keys.get(key) for cell in cells}
    value = values.pop() if len(values) == 1 else None
    return float(str(value)) if _is_number(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
