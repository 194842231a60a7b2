"""What the engine did over time, in one cell of each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from framework.records.analysis.cells import Cell, Damaged
from framework.records.analysis.comparison import Comparison
from framework.records.analysis.escape import for_figure
from framework.records.analysis.figures.rows import read_columns
from framework.records.analysis.figures.style import INK, PALETTE, lines_of, new_figure
from framework.records.over_time import REQUEST_COLUMNS, STEP_COLUMNS, Series, State, over_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CELLS = 6
NUM_BINS = 250
MAX_REPLICAS = 8
"""With more replicas their lines cannot be told apart, and only the sum is drawn."""
_WAITING, _RUNNING, _HELD, _CACHED = PALETTE[3], PALETTE[0], PALETTE[2], "#b7e4cf"


def draw(comparison: Comparison) -> Figure | None:
    """Tokens per second, requests and KV blocks against time: a row per group, its first cell; None without steps."""
    lines = [(group.label, group.cells) for group in lines_of(comparison)[0][:MAX_CELLS]]
    return draw_rows(lines, comparison.damaged)


def draw_rows(lines: Sequence[tuple[str, Sequence[Cell]]], damaged: list[Damaged] | None = None) -> Figure | None:
    """The figure of the first readable one of these cells for each label, all in the same bins of time.

    Lines are means over a bin, the shade around them its extremes. Replicas are summed; thin lines are single ones.
    """
    damaged = [] if damaged is None else damaged
    read = [(label, *found) for label, cells in lines if (found := _read(cells, damaged)) is not None]
    if not read:
        return None
    end_s = max(float(steps["finish_s"].max()) for _, steps, _ in read)
    figure, axes = new_figure(len(read), 3, 11.7, 1.7 * len(read) + 0.6, sharex=True)
    for (label, steps, requests), (tokens, states, blocks) in zip(read, axes, strict=True):
        series = over_time(steps, requests, NUM_BINS, (0.0, end_s))
        _stack(tokens, series.edges_s, [series.prefill_tokens_per_s, series.decode_tokens_per_s], _TOKENS)
        for name, color, text in (("num_waiting", _WAITING, "waiting"), ("num_running", _RUNNING, "running")):
            _line(states, series.edges_s, series.states[name], color, text)
            for own in _single(series):
                _thin(states, series.edges_s, own[name], color)
        held, cached = (series.states[name].mean / series.num_blocks for name in ("blocks_used", "blocks_cached"))
        _stack(blocks, series.edges_s, [held, cached], _BLOCKS)
        blocks.set_ylim(0, 1)
        for panel in (tokens, states):
            panel.set_ylim(bottom=0)
        count = f"\n{len(series.replicas)} replicas" if len(series.replicas) > 1 else ""
        name = label if len(label) < 26 else label.replace(" / ", "\n")
        tokens.set_ylabel(for_figure(name) + count, fontsize=8, color=INK)
    for panel, text in zip(axes[0], ("tokens per second", "requests", "share of KV blocks"), strict=True):
        panel.set_title(text, fontsize=9, color=INK, loc="left")
        panel.legend(loc="lower right", bbox_to_anchor=(1, 0.99), fontsize=7, frameon=False, ncols=2, borderpad=0.2)
    for panel in axes[-1]:
        panel.set_xlabel("time (s)", fontsize=8, color=INK)
    return figure


def _read(cells: Sequence[Cell], damaged: list[Damaged]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The rows of the first cell whose tables can be read; None without any, or without steps."""
    for cell in cells:
        steps = read_columns(cell.steps, STEP_COLUMNS, damaged)
        requests = read_columns(cell.requests, REQUEST_COLUMNS, damaged)
        if steps is not None and requests is not None:
            return (_arrays(steps), _arrays(requests)) if steps.num_rows else None
    return None


def _arrays(table: Any) -> dict[str, Any]:
    return {name: table[name].to_numpy() for name in table.column_names}


def _single(series: Series) -> list[dict[str, State]]:
    return list(series.replicas.values()) if 1 < len(series.replicas) <= MAX_REPLICAS else []


def _stack(panel: Axes, edges_s: np.ndarray, parts: Sequence[np.ndarray], looks: Sequence[tuple[str, str]]) -> None:
    """Areas on top of each other, flat within a bin."""
    below = np.zeros(len(edges_s))
    for part, (text, color) in zip(parts, looks, strict=True):
        above = below + np.append(part, part[-1])
        panel.fill_between(edges_s, below, above, step="post", color=color, linewidth=0, label=text)
        below = above


def _line(panel: Axes, edges_s: np.ndarray, state: State, color: str, text: str) -> None:
    low, mean, high = (np.append(values, values[-1]) for values in (state.low, state.mean, state.high))
    panel.fill_between(edges_s, low, high, step="post", color=color, alpha=0.25, linewidth=0)
    panel.plot(edges_s, mean, color=color, linewidth=1.2, label=text, drawstyle="steps-post")


def _thin(panel: Axes, edges_s: np.ndarray, state: State, color: str) -> None:
    panel.plot(edges_s, np.append(state.mean, state.mean[-1]), color=color, linewidth=0.5, alpha=0.5)


_TOKENS = (("prefill", PALETTE[1]), ("decode", PALETTE[0]))
_BLOCKS = (("held", _HELD), ("cached", _CACHED))
