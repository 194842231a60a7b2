"""The style of figures: one palette, light grid, no state outside the figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.grouping import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 10
"""The largest number of groups in a figure of lines. More cannot be told apart."""
INK, FAINT = "#1f2933", "#9aa5b1"
# Okabe and Ito's colours, which colour-blind readers tell apart, then four darker ones.
PALETTE = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"),
    *("#7f7f7f", "#b8a400", "#44337a", "#7b341e", "#234e52", "#97266d"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
"""So that lines can be told apart without colours too."""


def new_figure(num_rows: int, num_columns: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure of `width` x `height` inches and its axes as a 2-D array; independent of pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False, **options)
    for one in axes.flat:
        _dress(one)
    return figure, axes


def _dress(axes: Axes) -> None:
    axes.grid(visible=True, color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def lines_of(comparison: Comparison) -> tuple[list[Group], str]:
    """The first groups, at most `MAX_LINES`, the baseline among them, and what to say about the rest."""
    groups = comparison.groups
    if len(groups) <= MAX_LINES:
        return groups, ""
    base = [row.group for row in comparison.rows if row.mark == "baseline"]
    kept = [*base[:1], *(group for group in groups if not base or group is not base[0])][:MAX_LINES]
    return kept, f"{MAX_LINES} of {len(groups)} groups"


def colors(names: Sequence[str]) -> dict[str, str]:
    """A colour per name. Colours repeat after twelve names."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def legend(figure: Figure, axes: Axes, *, letters: int = 120, size: float = 8) -> None:
    """One legend for all panels, below them, where it covers no data.

    Args:
        letters: how many fit beside each other.
        size: of the letters, in points.
    """
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = max(1, min(4, len(labels), letters // (max(map(len, labels)) + 6)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=size)
