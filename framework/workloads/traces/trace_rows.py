"""A trace file read line by line: every line is a request, or an error with its file and line."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from framework.workloads.text_file import open_text

SKIP = "correct it, or leave such lines out with workload.on_bad_line=skip"


@dataclass(slots=True, kw_only=True)
class TraceRow:
    """One request of a trace. `time_s` counts from whatever the file counts from."""

    time_s: float
    prompt_tokens: int
    output_tokens: int
    keys: array[int] = field(default_factory=lambda: array("q"))
    """What the prompt shares with others, a key for each `key_tokens` tokens of it from its beginning."""
    key_tokens: int = 0
    client: str = ""
    category: str = ""
    priority: int = 0
    ttft_slo_s: float | None = None
    line: int = 0
    """In the file, from 1."""


@dataclass(slots=True)
class TraceRows:
    """What a file held."""

    rows: list[TraceRow]
    num_skipped: int
    first_skipped: str
    """Why the first skipped line was; empty if none was."""
    sha256: str
    """Of the whole file, so that a record says which trace it ran."""


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

    Args:
        from_s, to_s: only those that arrive so many seconds after the first one of the file, or later, and before that.
        parser: from the header line (empty without one) to what makes a row of a line or raises ValueError.
        skip_bad: leave lines out that cannot be used, rather than to raise.

    Raises:
        ValueError: naming file and line.
    """
    rows: list[TraceRow] = []
    num_skipped, first_skipped = 0, ""
    lines = _numbered_lines(path)
    number, header = next(lines, (1, "")) if has_header else (1, "")
    try:
        parse = parser(header)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {error}") from error
    start_s, last_s = None, 0.0
    for number, line in lines:
        try:
            row = parse(line)
            if row.time_s < last_s:
                raise ValueError(f"its time, {row.time_s} s, is before {last_s} s, that of the request before it")
            start_s, last_s = row.time_s if start_s is None else start_s, row.time_s
            if last_s - start_s < from_s:
                continue
            if last_s - start_s >= to_s:
                break
            _check(row, max_model_len)
        except ValueError as error:
            message = f"{path}:{number}: {error}"
            if not skip_bad:
                raise ValueError(f"{message}; {SKIP}") from error
            num_skipped, first_skipped = num_skipped + 1, first_skipped or message
            continue
        row.line = number
        rows.append(row)
        if len(rows) == limit:
            break
    if not rows:
        why = f" ({num_skipped} lines skipped, the first: {first_skipped})" if num_skipped else ""
        where = f" between workload.from_s={from_s} and to_s={to_s}" if from_s or to_s < math.inf else ""
        raise ValueError(f"workload.path={path} holds 0 requests that can be used{where}{why}; at least 1 is needed")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TraceRows(rows, num_skipped, first_skipped, digest)


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
