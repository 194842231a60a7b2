"""Names beside points, so that no name covers another one or a point."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from framework.records.analysis.figures.style import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Point = tuple[float, float]
_FONT_SIZE, _RADIUS = 7.5, 5


def place_labels(figure: Figure, panel: Axes, texts: Mapping[Point, str], points: Sequence[Point]) -> None:
    """Write each of `texts` beside its point, on the nearest free side, else further off with a line to the point.

    The figure has all else that it will have: its layout decides what is free.
    """
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is placed now stays where it is
    around = panel.get_window_extent()  # beside it are the numbers of the axes
    centres = panel.transData.transform(list(points))
    taken = [Bbox.from_bounds(x - _RADIUS, y - _RADIUS, 2 * _RADIUS, 2 * _RADIUS) for x, y in centres]
    taken += _steps(panel)
    for point, text in texts.items():
        best, least = None, float("inf")
        for dx, dy in _OFFSETS:
            sides = ("left" if dx >= 0 else "right", "bottom" if dy > 0 else "top" if dy < 0 else "center")
            to_edge = {"relpos": (0.0 if dx >= 0 else 1.0, 0.5), "shrinkA": 0.0}
            arrow = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, **to_edge} if abs(dy) > 12 else None
            drawn = panel.annotate(
                text,
                point,
                (dx, dy),
                textcoords="offset points",
                fontsize=_FONT_SIZE,
                color=INK,
                ha=sides[0],
                va=sides[1],
                arrowprops=arrow,
            )
            drawn.get_window_extent()  # works out where it is; that box includes the line
            box = Text.get_window_extent(drawn)
            covered = sum(box.overlaps(other) for other in taken) + 2 * (not _inside(box, around))
            if covered < least:
                if best is not None:
                    best.remove()
                best, best_box, least = drawn, box, covered
            else:
                drawn.remove()
            if not covered:
                break
        if best is not None:
            taken.append(best_box)


def _steps(panel: Axes) -> list[Bbox]:
    """Where the lines of steps are, such as a Pareto front: a thin box for each of their straight parts."""
    from matplotlib.transforms import Bbox

    boxes = []
    for line in panel.get_lines():
        if line.get_drawstyle() == "steps-post":
            corners = panel.transData.transform(line.get_xydata())
            for (x0, y0), (x1, y1) in itertools.pairwise(corners):
                boxes += [Bbox([[x0, y0 - 1], [x1, y0 + 1]]), Bbox([[x1 - 1, min(y0, y1)], [x1 + 1, max(y0, y1)]])]
    return boxes


def _inside(box: object, around: object) -> bool:
    return (
        box.x0 >= around.x0 and box.x1 <= around.x1 and box.y0 >= around.y0 and box.y1 <= around.y1  # type: ignore[attr-defined]
    )


_NEAR = ((6, 4), (6, -4), (-6, 4), (-6, -4), (7, 0), (-7, 0))
_OFFSETS = (*_NEAR, *((dx, sign * dy) for dy in range(16, 280, 12) for sign in (1, -1) for dx in (10, -10)))
"""Points to the right and upwards, the nearest first."""
