"""Throughput against latency: the groups that no other group of the same load beats in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_figure
from framework.records.analysis.figures.load import LOADS
from framework.records.analysis.figures.place_labels import place_labels
from framework.records.analysis.figures.style import FAINT, INK, PALETTE, colors, legend, new_figure
from framework.records.analysis.grouping import Group, show
from framework.records.analysis.labels import label
from framework.records.analysis.observations import observed
from framework.records.analysis.statistics import Estimate, mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THROUGHPUT = ("output_tokens_per_s", "requests_per_s")
LATENCY = "ttft_s/p99"
MAX_LABELS = 14
_POLICIES = ("scheduler", "eviction", "router", "attention", "graph", "sampler")
"""The keys of which the first one that is compared gives the colours."""
_LOADS = (*LOADS, "workload.time_scale", "workload.num_requests")


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
    """A point per group; None with less than two groups, or without both metrics.

    A front joins groups of one load only: more load is not a choice that a policy makes. Where policies have several
    groups at a load, each has a front of its own; else one front goes over all of them. Full points are on a front.
    """
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
            groups.append((group, mean(xs), mean(ys)))
    if len(groups) < 2:
        return None
    along, up = label(latency), label(throughput)
    groups = [(group, _scaled(x, along.scale), _scaled(y, up.scale)) for group, x, y in groups]
    figure, ((panel,),) = new_figure(1, 1, 6.4, 4.2)
    points = [(x.value, y.value) for _, x, y in groups]
    key = next((kind for kind in _POLICIES if kind in comparison.by), "")
    policies = [show(group.values.get(key, "")) for group, _, _ in groups]
    if len({*policies}) == len(policies) or len({*policies}) > len(PALETTE):  # names say it better than colours
        key, policies = "", [""] * len(groups)
    chosen = colors(list(dict.fromkeys(policies))) if key else {"": PALETTE[2]}
    best: set[int] = set()
    for members in _classes([group for group, _, _ in groups], policies):
        on_front = [members[i] for i in front([points[i] for i in members])]
        best.update(on_front)
        color = chosen[policies[members[0]]] if len({policies[i] for i in members}) == 1 else FAINT
        panel.step(
            [points[i][0] for i in on_front], [points[i][1] for i in on_front], where="post", color=color, linewidth=1.2
        )
    same = {
        point: [_name(group, key if len(chosen) > 1 else "") for group, x, y in groups if (x.value, y.value) == point]
        for point in points
    }
    texts: dict[tuple[float, float], str] = {}
    for i, (group, x, y) in enumerate(groups):
        color, name = chosen[policies[i]], _name(group, key if len(chosen) > 1 else "")
        if x.low is not None:
            panel.plot([x.low, x.high], [y.value, y.value], color=color, linewidth=1, alpha=0.6)
        if y.low is not None:
            panel.plot([x.value, x.value], [y.low, y.high], color=color, linewidth=1, alpha=0.6)
        inside = color if i in best else "white"
        panel.plot(x.value, y.value, "o", color=color, markersize=6, markerfacecolor=inside)
        names = same[points[i]]
        if name and name == names[0] and (len(same) <= MAX_LABELS or i in best):
            texts[points[i]] = for_figure(name if len(names) == 1 else f"{name} and {len(names) - 1} more")
    panel.set_xlabel(for_figure(f"{along.text}, better to the left"), fontsize=8, color=INK)
    panel.set_ylabel(for_figure(f"{up.text}, better upwards"), fontsize=8, color=INK)
    panel.margins(x=0.12, y=0.1)
    if len(chosen) > 1:
        for name, color in chosen.items():
            panel.plot([], [], "o", color=color, label=for_figure(name))
        legend(figure, panel, letters=90)
    place_labels(figure, panel, texts, points)
    return figure


def _name(group: Group, colored: str) -> str:
    """What is written beside the point of a group: its values, less the one that its colour says."""
    rest = [show(value) for key, value in group.values.items() if key != colored]
    return " / ".join(rest) if colored else group.label


def _classes(groups: Sequence[Group], policies: Sequence[str]) -> list[list[int]]:
    """The indices of groups that one front may join."""
    loads: dict[tuple[object, ...], list[int]] = {}
    for i, group in enumerate(groups):
        loads.setdefault(tuple(group.values.get(key) for key in _LOADS), []).append(i)
    several = any(count > 1 for members in loads.values() for count in Counter(policies[i] for i in members).values())
    if not several:
        return list(loads.values())
    return [
        [i for i in members if policies[i] == policy]
        for members in loads.values()
        for policy in dict.fromkeys(policies[i] for i in members)
    ]


def _scaled(estimate: Estimate, scale: float) -> Estimate:
    low, high = (None if edge is None else edge * scale for edge in (estimate.low, estimate.high))
    return Estimate(estimate.value * scale, low, high, estimate.p)
