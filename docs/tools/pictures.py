"""Draw the pictures of the documents: `python docs/tools/pictures.py` writes docs/pictures/*.svg.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart. The output is the same on every call, so
that a test can compare it with the files in the repository.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

FOLDER = Path(__file__).resolve().parents[1] / "pictures"
SKY, GREEN, ORANGE, YELLOW, PINK, GREY = "#56B4E9", "#009E73", "#E69F00", "#F0E442", "#CC79A7", "#BBBBBB"
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "servelab", "font.family": "DejaVu Sans"})


def box(ax: Axes, x: float, y: float, w: float, h: float, text: str, colour: str, *, size: float = 9) -> None:
    """A rounded box with a pale fill of `colour` around centred text."""
    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=colour + "55", edgecolor=colour, linewidth=1.2))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=size)


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", *, side: float = 0.12
) -> None:
    """An arrow, with a caption beside its middle."""
    ax.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": "#333333", "lw": 1.1})
    if text:
        ax.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + side, text, ha="center", va="bottom", fontsize=8)


def canvas(width: float, height: float) -> Axes:
    """Empty axes in which a unit is one inch."""
    figure = plt.figure(figsize=(width, height))
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.axis("off")
    return ax


def parts() -> None:
    """The packages in layers; an import goes down."""
    ax = canvas(9.4, 5.5)
    box(ax, 0.2, 4.75, 5.9, 0.55, "app: run.py, sweeps, commands, LLM", SKY)
    rows = [
        [("execution: a step on a device", SKY), ("simulation: a step in virtual time", SKY), ("conformance", SKY)],
        [("workloads: requests in", SKY), ("config: schema and checks", SKY)],
        [("models: networks and loading", SKY), ("records: metrics, analysis, trackers", SKY)],
        [("engine: requests, plans, KV cache, the step loop", SKY)],
        [("toolkit: parts for plugin authors", GREEN)],
        [("registry: names, classes, parameters", GREEN)],
        [("interfaces: the contracts", GREEN)],
    ]
    for i, row in enumerate(rows):
        width = (5.9 - 0.12 * (len(row) - 1)) / len(row)
        for j, (text, colour) in enumerate(row):
            box(
                ax,
                0.2 + j * (width + 0.12),
                4.1 - i * 0.65,
                width,
                0.55,
                text,
                colour,
                size=8.5 if len(row) < 3 else 7.2,
            )
    kinds = "schedulers\neviction\nattention\nsamplers\ngraphs\ncost models\nrouters"
    box(ax, 6.9, 1.9, 2.3, 2.75, "plugins/\none file, one class\n\n" + kinds, ORANGE)
    arrow(ax, (8.05, 1.85), (6.15, 0.6))
    ax.text(7.5, 1.2, "imports the\ngreen layers only", fontsize=8, ha="left", va="top")
    box(ax, 6.9, 4.75, 2.3, 0.55, "conf/: presets and studies", YELLOW)
    arrow(ax, (6.85, 5.02), (6.15, 5.02))
    arrow(ax, (0.08, 5.3), (0.08, 0.2))
    ax.text(3.15, 0.03, "An import runs down, never up or sideways.", fontsize=8, ha="center", va="bottom")


def request() -> None:
    """The life of one request, from the workload to the record."""
    ax = canvas(9.4, 3.6)
    y = 2.0
    stations = [("workload", SKY), ("waiting", YELLOW), ("running", GREEN), ("ended", SKY), ("record", SKY)]
    xs = [0.2, 2.1, 4.2, 6.5, 8.1]
    widths = [1.2, 1.3, 1.5, 1.0, 1.1]
    for (name, colour), x, width in zip(stations, xs, widths, strict=True):
        box(ax, x, y, width, 0.7, name, colour, size=10)
    captions = ["arrives", "plan.add: OK", "stop, length\nor abort", ""]
    for i, text in enumerate(captions):
        arrow(ax, (xs[i] + widths[i] + 0.03, y + 0.35), (xs[i + 1] - 0.03, y + 0.35), text, side=0.06)
    ax.annotate(
        "", xy=(2.75, y - 0.05), xytext=(4.95, y - 0.05),
        arrowprops={"arrowstyle": "-|>", "color": "#333333", "connectionstyle": "arc3,rad=-0.35"},
    )  # fmt: skip
    ax.text(3.85, y - 0.62, "preempted: blocks go, computed again later", ha="center", va="top", fontsize=8)
    ax.annotate(
        "", xy=(4.6, y + 0.75), xytext=(5.3, y + 0.75),
        arrowprops={"arrowstyle": "-|>", "color": "#333333", "connectionstyle": "arc3,rad=0.9"},
    )  # fmt: skip
    ax.text(4.95, y + 1.22, "each step: a prompt chunk, or one token", ha="center", va="bottom", fontsize=8)
    box(ax, 4.2, 0.2, 3.3, 0.6, "KV cache: prefix blocks, free blocks, eviction", ORANGE, size=8.5)
    arrow(ax, (5.6, y - 0.05), (5.75, 0.85))
    ax.text(5.85, 1.35, "takes blocks, and leaves them cached at its end", fontsize=8, va="center")
    arrow(ax, (1.4, y - 0.05), (1.4, 0.95))
    ax.text(1.4, 0.75, "too long, or not servable:\nrejected and recorded", fontsize=8, ha="center", va="top")


def step() -> None:
    """Host and device over time at engine.overlap = 0 and 1."""
    ax = canvas(9.4, 3.5)
    for title, base, overlap in (("engine.overlap=0", 2.05, 0), ("engine.overlap=1", 0.3, 1)):
        ax.text(0.15, base + 1.1, title, fontsize=9.5, va="center")
        ax.text(0.15, base + 0.72, "host", fontsize=8.5, va="center")
        ax.text(0.15, base + 0.22, "device", fontsize=8.5, va="center")
        plan, device, out = 0.6, 1.5, 0.5
        begin = 1.1 + plan
        if overlap:
            box(ax, 1.1, base + 0.52, plan, 0.4, "plan 1", SKY, size=8)
        for n in range(1, 4):
            box(ax, begin, base, device - 0.04, 0.4, f"step {n}", GREEN, size=8)
            if not overlap:
                box(ax, begin - plan, base + 0.52, plan - 0.04, 0.4, f"plan {n}", SKY, size=8)
                box(ax, begin + device, base + 0.52, out, 0.4, f"out {n}", YELLOW, size=8)
                begin += device + out + plan + 0.04
                continue
            if n > 1:
                box(ax, begin + 0.04, base + 0.52, out - 0.04, 0.4, f"out {n - 1}", YELLOW, size=8)
            if n < 3:
                after = 0.04 if n == 1 else out + 0.04
                box(ax, begin + after, base + 0.52, plan - 0.04, 0.4, f"plan {n + 1}", SKY, size=8)
            begin += device
        if overlap:
            box(ax, begin + 0.04, base + 0.52, out - 0.04, 0.4, "out 3", YELLOW, size=8)
    ax.text(9.25, 1.4, "out: tokens reach their requests", fontsize=8, ha="right")
    arrow(ax, (1.1, 0.14), (8.9, 0.14))
    ax.text(8.95, 0.14, "time", fontsize=8, ha="left", va="center")


def rank() -> None:
    """What a worker is sent, once and in every step."""
    ax = canvas(9.4, 3.2)
    planner = "rank 0\n\nworkload, engine,\nscheduler, KV cache\n\nand the first slice\nof the model"
    worker = "rank 1 ... N-1\n\none slice of the model,\nthe same block numbers\n\n"
    box(ax, 0.2, 0.35, 2.6, 2.5, planner, SKY)
    box(ax, 6.6, 0.35, 2.6, 2.5, worker + "derives the same tokens\nfrom the same seeds", GREEN)
    arrow(ax, (2.85, 2.45), (6.55, 2.45), "at the start: configuration, plugin sources, fingerprint")
    arrow(ax, (2.85, 1.75), (6.55, 1.75), "each step: what changed in the plan (17 bytes and up)")
    ax.annotate("", xy=(6.55, 1.05), xytext=(2.85, 1.05), arrowprops={"arrowstyle": "<|-|>", "color": "#333333"})
    ax.text(4.7, 1.17, "two sums per layer, one for the embedding", ha="center", va="bottom", fontsize=8)
    arrow(ax, (6.55, 0.5), (2.85, 0.5), "heartbeat: steps and sums that it began", side=0.1)


PICTURES: dict[str, Callable[[], None]] = {"parts": parts, "request": request, "step": step, "rank": rank}


def draw(name: str) -> str:
    """The SVG text of one picture."""
    PICTURES[name]()
    text = io.StringIO()
    plt.gcf().savefig(text, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    plt.close()
    return text.getvalue()


def main() -> int:
    """Write every picture."""
    FOLDER.mkdir(exist_ok=True)
    for name in PICTURES:
        (FOLDER / f"{name}.svg").write_text(draw(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
