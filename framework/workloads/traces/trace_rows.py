"""A trace file read line by line: every line is a request, or an error with its file and line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from framework.workloads.text_file import open_text
from framework.workloads.traces.in_order import InOrder
from framework.workloads.traces.trace_row import TraceRow

SKIP = "correct it, or leave such lines out with workload.on_bad_line=skip"


@dataclass(slots=True)
class TraceRows:
    """What a file held."""

    rows: list[TraceRow]
    num_skipped: int
    first_skipped: str
    """Why the first skipped line was; empty if none was."""
    sha256: str
    """The hash of the whole file, so that a record says which trace it ran."""


def read_trace(
    path: Path,
    parser: Callable[[str], Callable[[str], TraceRow]],
    *,
    has_header: bool,
    limit: int | None,
    skip_bad: bool,
    max_model_len: int,
    from_s: float = 0.0,
    to_s: float = math.inf,
) -> TraceRows:
    """The first `limit` requests of `path` (None: all), in the order of the file, which is the order of time.

    Where lines may be left out and times go back, as few lines are left out as possible.

    Args:
        from_s, to_s: take only requests that arrive from `from_s` to before `to_s`, counted from the file's first one.
        parser: takes the header line (empty if there is none) and returns a function that makes a row of a line or
            raises ValueError.
        skip_bad: whether to leave out lines that cannot be used, rather than raise.

    Raises:
        ValueError: a line cannot be used. The message names file and line.
    """
    rows = InOrder()
    bad: list[tuple[int, str]] = []  # line and reason
    lines = _numbered_lines(path)
    number, header = next(lines, (1, "")) if has_header else (1, "")
    try:
        parse = parser(header)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {error}") from error
    in_window = from_s <= 0 and to_s == math.inf
    start_s, last_s = None, 0.0
    for number, line in lines:
        try:
            row = parse(line)
            if not skip_bad:
                if row.time_s < last_s:
                    raise ValueError(f"its time, {row.time_s} s, is before {last_s} s, that of the request before it")
                start_s, last_s = row.time_s if start_s is None else start_s, row.time_s
                if last_s - start_s < from_s:
                    continue
                if last_s - start_s >= to_s:
                    break
            _check(row, max_model_len)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{path}:{number}: {error}; {SKIP}") from error
            bad.append((number, str(error)))
            continue
        row.line = number
        rows.add(row)
        if skip_bad:
            if in_window and limit is not None and len(rows) > limit:  # one more: the last one may be too late
                break
        elif len(rows) == limit:
            break
    kept, left_out = rows.split(limit if in_window or not skip_bad else None)
    left_out = sorted([*left_out, *bad])
    first_line, until = 1, kept[-1].line if kept and len(kept) == limit else number
    if skip_bad and not in_window and kept:
        start = kept[0].time_s
        kept = [row for row in kept if from_s <= row.time_s - start < to_s][:limit]
        first_line, until = (kept[0].line, kept[-1].line) if kept else (1, number)
    left_out = [(at, why) for at, why in left_out if first_line <= at <= until]
    first = f"{path}:{left_out[0][0]}: {left_out[0][1]}" if left_out else ""
    if not kept:
        why = f" ({len(left_out)} lines skipped, the first: {first})" if left_out else ""
        where = "" if in_window else f" between workload.from_s={from_s} and to_s={to_s}"
        raise ValueError(f"workload.path={path} holds 0 requests that can be used{where}{why}; at least 1 is needed")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TraceRows(kept, len(left_out), first, digest)


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold anything, with their numbers from 1."""
    with open_text(path) as file:
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def _check(row: TraceRow, max_model_len: int) -> None:
    if (tokens := row.prompt_tokens + row.output_tokens) > max_model_len:
        raise ValueError(
            f"{row.prompt_tokens} prompt and {row.output_tokens} output tokens are {tokens}, but a request has at most "
            f"{max_model_len} (max_model_len); raise engine.max_model_len if the model and the KV cache allow more"
        )
