"""What a person sees of a sweep: a live table on a terminal, a line per cell elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from framework.app.launching.sweep_file import Cell, Sweep

REFRESH_S = 0.5
_STYLES = {"completed": "green", "failed": "red", "skipped": "yellow", "interrupted": "yellow", "running": "bold"}


class SweepTable:
    """Shows `sweep`; drawn by its caller's thread, since a process that forks must not have others.

    Args:
        console: where to draw; None for stderr.
    """

    def __init__(self, sweep: Sweep, console: Console | None = None) -> None:
        self.sweep = sweep
        self.console = console or Console(stderr=True)
        self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._ended: list[Cell] = []
        self._told: dict[str, str] = {}
        """Reasons for skipping that were printed, and the cell that had each first."""
        self._started_s: dict[str, float] = {}
        self._drawn_s = float("-inf")

    def __enter__(self) -> SweepTable:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.refresh(now=True)
        self._live.stop()

    def on_start(self, cell: Cell) -> None:
        """Note that the process of a cell runs."""
        self._started_s[cell.folder] = time.monotonic()
        self.refresh(now=True)

    def on_end(self, cell: Cell) -> None:
        """Note that a cell has its final status."""
        self._ended.append(cell)
        if self.console.is_terminal:
            self.refresh(now=True)
            return
        done = sum(cell.status not in ("waiting", "running") for cell in self.sweep.cells)
        took = "" if cell.wall_s is None else f" {cell.wall_s:.1f} s"
        line = f"[{done}/{len(self.sweep.cells)}] {cell.folder}: {cell.status}{took}: {' '.join(cell.overrides)}"
        line += f" ({self._reason(cell)})" if cell.reason else ""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _reason(self, cell: Cell) -> str:
        """The reason of a cell, in full only the first time if the cell was skipped."""
        if cell.status != "skipped":
            return cell.reason
        first = self._told.setdefault(cell.reason, cell.folder)
        return cell.reason if first == cell.folder else f"as cell {first}"

    def refresh(self, *, now: bool = False) -> None:
        """Draw the table if there is a terminal and it is time."""
        if self.console.is_terminal and (now or time.monotonic() - self._drawn_s >= REFRESH_S):
            self._drawn_s = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        cells = self.sweep.cells
        counts = Counter(cell.status for cell in cells)
        title = f"{self.sweep.study or 'sweep'}: {len(cells)} cells, " + ", ".join(
            f"{count} {status}" for status, count in sorted(counts.items())
        )
        table = Table("cell", "status", "s", "GPUs", "overrides", title=title, title_justify="left")
        running = [cell for cell in cells if cell.status == "running"]
        num_ended = max(3, self.console.height - len(running) - 8)
        common = _common([cell.overrides for cell in cells])
        for cell in [*self._ended[-num_ended:], *running]:
            started_s = self._started_s.get(cell.folder, time.monotonic())
            wall_s = cell.wall_s if cell.wall_s is not None else time.monotonic() - started_s
            own = " ".join(text for text in cell.overrides if text not in common)
            text = f"{own} ({cell.reason})" if cell.reason else own
            style = _STYLES.get(cell.status, "")
            table.add_row(cell.folder, f"[{style}]{cell.status}[/]", f"{wall_s:.1f}", ",".join(cell.gpus), _plain(text))
        return table


def _common(overrides: list[list[str]]) -> set[str]:
    """The overrides that every cell has. They tell nothing in a table."""
    return set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
