"""Figures of a comparison: bars, latency distributions, Pareto front, curves over numeric keys, step timeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_file_name
from framework.records.analysis.figures import bars, curves, latency, load, pareto, timeline
from framework.records.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONTS = ["DejaVu Sans", "Verdana", "Arial"]
"""The fonts. The first is matplotlib's own, which the layout is made for; the next ones are as wide."""


def figures(comparison: Comparison) -> Iterator[tuple[str, str, Figure]]:
    """File name, caption and figure of everything that these cells have something to show for."""
    keys = curves.numeric_keys(comparison)
    drawn = [
        ("bars", "Means with 95 % intervals", bars.draw(comparison)),
        ("pareto", "Throughput against latency, with Pareto fronts at each load", pareto.draw(comparison)),
        ("latency_cdf", "Latency of completed requests", latency.draw(comparison)),
    ]
    if (key := load.load_key(comparison)) is not None:
        bends = load.draw(comparison, key, against_throughput=False)
        drawn.append(("latency_load", "Latency against load; star: knee, dotted: objective", bends))
        bends = load.draw(comparison, key, against_throughput=True)
        drawn.append(("latency_throughput", "Latency against throughput, joined in order of the load", bends))
    for key in keys:
        rates = curves.draw(comparison, key, curves.HIT_RATES) if key == curves.CAPACITY else None
        drawn.append(("hit_rate_capacity", "Hit rate against the capacity of the cache", rates))
        rest = [m for m in comparison.metrics if key != curves.CAPACITY or m not in curves.HIT_RATES]
        drawn.append((f"against_{for_file_name(key)}", f"Metrics against {key}", curves.draw(comparison, key, rest)))
    drawn.append(("timeline", "What the engine did, in one cell of each group", timeline.draw(comparison)))
    for name, caption, figure in drawn:
        if figure is not None:
            yield name, caption, figure


def write_figures(comparison: Comparison, folder: Path, suffix: str = "svg") -> list[Path]:
    """Write every figure into `folder`; returns the paths."""
    paths = []
    for name, _, figure in figures(comparison):
        path = folder / f"{name}.{suffix}"
        with replacing(path) as temporary:
            save(figure, temporary, suffix)
        paths.append(path)
    return paths


def save(figure: Figure, target: object, suffix: str) -> None:
    """Write `figure` to a path or stream: text stays text, and equal figures give equal bytes."""
    import matplotlib

    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "servelab", "font.family": "sans-serif", "font.sans-serif": FONTS}
    ):
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(target, format=suffix, dpi=150, metadata=metadata)  # type: ignore[arg-type]
