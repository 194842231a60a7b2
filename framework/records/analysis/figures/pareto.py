"""Throughput against latency: the groups that no other group beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_figure
from framework.records.analysis.figures.place_labels import place_labels
from framework.records.analysis.figures.style import FAINT, INK, PALETTE, new_figure
from framework.records.analysis.labels import label
from framework.records.analysis.observations import observed
from framework.records.analysis.statistics import Estimate, mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THROUGHPUT = ("output_tokens_per_s", "requests_per_s")
LATENCY = "ttft_s/p99"
MAX_LABELS = 14


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (latency, throughput) that no other one equals or beats in both, by rising latency."""
    kept: list[int] = []
    best = float("-inf")
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            kept.append(i)
            best = points[i][1]
    return kept


def draw(comparison: Comparison) -> Figure | None:
    """A point per group; None with less than two groups, or without both metrics."""
    defined = {name for cell in comparison.cells for name in cell.metrics}
    wanted = [m for m in comparison.metrics if "/" in m and m.partition("/")[0].endswith("_s")]
    latency = next((m for m in [LATENCY, *wanted] if m in (wanted or defined)), LATENCY)
    rates = [m for m in comparison.metrics if m.endswith("_per_s")]
    throughput = next((m for m in [*rates, *THROUGHPUT] if m in defined), "")
    groups = []
    for group in comparison.groups:
        xs = observed(group.cells, latency, comparison.seeds)
        ys = observed(group.cells, throughput, comparison.seeds)
        if xs and ys:
            groups.append((group.label, mean(xs), mean(ys)))
    if len(groups) < 2:
        return None
    along, up = label(latency), label(throughput)
    groups = [(name, _scaled(x, along.scale), _scaled(y, up.scale)) for name, x, y in groups]
    figure, ((panel,),) = new_figure(1, 1, 6.4, 4.2)
    points = [(x.value, y.value) for _, x, y in groups]
    best = front(points)
    panel.step(
        [points[i][0] for i in best], [points[i][1] for i in best], where="post", color=PALETTE[2], linewidth=1.4
    )
    same = {point: [name for name, x, y in groups if (x.value, y.value) == point] for point in points}
    texts: dict[tuple[float, float], str] = {}
    for i, (name, x, y) in enumerate(groups):
        color = PALETTE[2] if points[i] in [points[j] for j in best] else FAINT
        if x.low is not None:
            panel.plot([x.low, x.high], [y.value, y.value], color=color, linewidth=1, alpha=0.6)
        if y.low is not None:
            panel.plot([x.value, x.value], [y.low, y.high], color=color, linewidth=1, alpha=0.6)
        panel.plot(x.value, y.value, "o", color=color, markersize=6)
        names = same[points[i]]
        if name == names[0] and (len(same) <= MAX_LABELS or i in best):
            texts[points[i]] = for_figure(name if len(names) == 1 else f"{name} and {len(names) - 1} more")
    panel.set_xlabel(for_figure(f"{along.text}, better to the left"), fontsize=8, color=INK)
    panel.set_ylabel(for_figure(f"{up.text}, better upwards"), fontsize=8, color=INK)
    panel.margins(x=0.12, y=0.1)
    place_labels(figure, panel, texts, points)
    return figure


def _scaled(estimate: Estimate, scale: float) -> Estimate:
    low, high = (None if edge is None else edge * scale for edge in (estimate.low, estimate.high))
    return Estimate(estimate.value * scale, low, high, estimate.p)
