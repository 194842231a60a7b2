"""What the engine did over time, in one cell of each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from framework.records.analysis.cells import Cell
from framework.records.analysis.comparison import Comparison
from framework.records.analysis.figures.style import INK, PALETTE, lines_of, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CELLS = 6
MAX_POINTS = 400
_SUMMED = ("num_prefill_tokens", "num_decode_tokens")
_LAST = ("finish_s", "num_running", "num_waiting", "blocks_used", "blocks_cached", "blocks_free")


def draw(comparison: Comparison) -> Figure | None:
    """Tokens of a step, requests and KV blocks against time: a row a group, its first cell; None without steps."""
    return draw_rows([(group.label, group.cells) for group in lines_of(comparison)[0][:MAX_CELLS]])


def draw_rows(lines: Sequence[tuple[str, Sequence[Cell]]]) -> Figure | None:
    """The figure of the first of these cells for each label."""
    rows = [(label, found) for label, cells in lines if (found := steps(cells[0]))["finish_s"].size]
    if not rows:
        return None
    figure, axes = new_figure(len(rows), 3, 11.7, 1.7 * len(rows) + 0.6, sharex=True)
    for (label, found), (tokens, requests, blocks) in zip(rows, axes, strict=True):
        t_s = found["finish_s"]
        tokens.stackplot(
            t_s,
            found["num_prefill_tokens"],
            found["num_decode_tokens"],
            labels=["prefill", "decode"],
            colors=[PALETTE[1], PALETTE[0]],
            linewidth=0,
            step="pre",
        )
        requests.plot(t_s, found["num_waiting"], color=PALETTE[3], linewidth=1.2, label="waiting")
        requests.plot(t_s, found["num_running"], color=PALETTE[0], linewidth=1.2, label="running")
        total = found["blocks_used"] + found["blocks_cached"] + found["blocks_free"]
        shares = [found[name] / total for name in ("blocks_used", "blocks_cached")]
        blocks.stackplot(t_s, *shares, labels=["held", "cached"], colors=[PALETTE[2], "#b7e4cf"], linewidth=0)
        blocks.set_ylim(0, 1)
        tokens.set_ylabel(label if len(label) < 26 else label.replace(" / ", "\n"), fontsize=8, color=INK)
    for panel, text in zip(axes[0], ("tokens a step", "requests", "share of KV blocks"), strict=True):
        panel.set_title(text, fontsize=9, color=INK, loc="left")
        panel.legend(loc="upper right", fontsize=7, frameon=False, ncols=2)
    for panel in axes[-1]:
        panel.set_xlabel("time (s)", fontsize=8, color=INK)
    return figure


def steps(cell: Cell) -> dict[str, np.ndarray]:
    """The timeline in at most `MAX_POINTS` points: tokens averaged over neighbouring steps, states at their end."""
    table = pq.read_table(cell.steps, columns=[*_SUMMED, *_LAST])
    n = table.num_rows
    starts = np.unique(np.linspace(0, n, min(n, MAX_POINTS), endpoint=False).astype(int))
    counts = np.diff(np.append(starts, n))
    columns = {name: table[name].to_numpy().astype(np.float64) for name in table.column_names}
    found = {name: np.add.reduceat(columns[name], starts) / counts if n else columns[name] for name in _SUMMED}
    return found | {name: columns[name][starts + counts - 1] if n else columns[name] for name in _LAST}
