"""Which lines of a trace to leave out so that the times of the others do not go back."""

from __future__ import annotations

from bisect import bisect_right

from framework.workloads.traces.trace_row import TraceRow


class InOrder:
    """Keeps as many of the rows given to it as can be kept with times that never decrease.

    One wrong time, however far ahead, costs its own line and not all that follow it: the kept rows are a longest
    non-decreasing subsequence of those so far (Schensted 1961, by patience sorting), in O(log n) per row.
    """

    def __init__(self) -> None:
        self._rows: list[TraceRow] = []
        self._before: list[int] = []  # the row that precedes each in the longest sequence ending with it; -1 for none
        self._ends: list[int] = []  # of the sequences of length 1, 2, ..., the row with the smallest time that ends one
        self._end_times_s: list[float] = []

    def __len__(self) -> int:
        """How many rows are kept."""
        return len(self._ends)

    def add(self, row: TraceRow) -> None:
        place = bisect_right(self._end_times_s, row.time_s)
        self._before.append(self._ends[place - 1] if place else -1)
        self._ends[place : place + 1] = [len(self._rows)]
        self._end_times_s[place : place + 1] = [row.time_s]
        self._rows.append(row)

    def split(self, limit: int | None = None) -> tuple[list[TraceRow], list[tuple[int, str]]]:
        """The first `limit` kept rows (None: all), and the line of every row left out among them, with the reason."""
        kept: list[TraceRow] = []
        place = self._ends[-1] if self._ends else -1
        while place >= 0:
            kept.append(self._rows[place])
            place = self._before[place]
        kept.reverse()
        cut = limit is not None and len(kept) > limit
        kept = kept[:limit]
        left_out: list[tuple[int, str]] = []
        following = 0  # the first kept row after the one looked at
        for row in self._rows:
            if following == len(kept):
                if cut:
                    break
                left_out.append((row.line, _why(row, kept, following)))
            elif row is kept[following]:
                following += 1
            else:
                left_out.append((row.line, _why(row, kept, following)))
        return kept, left_out


def _why(row: TraceRow, kept: list[TraceRow], following: int) -> str:
    if following and row.time_s < (last_s := kept[following - 1].time_s):
        return f"its time, {row.time_s} s, is before {last_s} s, that of the request before it"
    next_row = kept[min(following, len(kept) - 1)]
    return f"its time, {row.time_s} s, is after {next_row.time_s} s, that of line {next_row.line}, which follows it"
