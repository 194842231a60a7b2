"""Finds the records below folders and flattens them: a cell is a folder, its keys and its metrics."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framework.records.analysis.contents import by_content
from framework.records.analysis.escape import printable
from framework.records.record import REQUESTS, STEPS, SUMMARY, SUPERSEDED

Value = str | int | float | bool | None
_TRACES_OF_A_CELL = {SUMMARY, REQUESTS, STEPS, ".hydra"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One record, without its tables."""

    folder: Path
    status: str
    reason: str = ""
    summary: dict[str, Any] = field(default_factory=dict, repr=False)
    """The content of `summary.json`."""
    keys: dict[str, Value] = field(default_factory=dict, repr=False)
    """The configuration that was asked for, dotted (`engine.num_blocks`); `scheduler` stands for `scheduler.name`.
    What came out of it and where it ran are `effective.*` and `environment.*`."""
    metrics: dict[str, float] = field(default_factory=dict, repr=False)
    """The metrics that are defined."""
    odd: dict[str, str] = field(default_factory=dict, repr=False)
    """Metrics that are neither a finite number nor null, and what they are. They do not count."""

    @property
    def requests(self) -> Path:
        return self.folder / REQUESTS

    @property
    def steps(self) -> Path:
        return self.folder / STEPS


@dataclass(frozen=True, slots=True)
class Damaged:
    """A folder with a part of a record, or with one that cannot be read, and why."""

    folder: Path
    why: str

    def __str__(self) -> str:
        return f"{self.folder}: {self.why}"


def find(folders: Sequence[str | Path]) -> tuple[list[Cell], list[Damaged]]:
    """Every record in or below `folders`, each once, in natural order of their paths.

    Raises:
        ValueError: a folder does not exist, or there is no trace of a record in any of them.
    """
    cells: list[Cell] = []
    damaged: list[Damaged] = []
    seen: set[Path] = set()
    for root in map(Path, folders):
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder; give that of a run or a sweep, such as multirun/2026-01-31/...")
        for folder in _candidates(root, damaged):
            if (resolved := folder.resolve()) in seen:
                continue
            seen.add(resolved)
            try:
                cells.append(read_cell(folder))
            except ValueError as error:
                damaged.append(Damaged(folder, str(error)))
    if not cells:
        names = ", ".join(map(str, folders))
        found = "".join(f"\n  {one}" for one in damaged)
        raise ValueError(f"no readable record below {names}: a record is a folder with {SUMMARY}{found}")
    by_content(cells)
    return cells, damaged


def read_cell(folder: Path) -> Cell:
    """The record in `folder`. Its tables are checked but not read.

    Raises:
        ValueError: when a part is missing or damaged, saying which.
    """
    try:
        summary = read_json(folder / SUMMARY)
    except FileNotFoundError:
        raise ValueError(f"no {SUMMARY}: the cell never finished, or runs still") from None
    if not isinstance(summary, dict) or not isinstance(summary.get("status"), str):
        raise ValueError(f"{SUMMARY} has no status: it is not a record")
    parts = {name: summary.get(name, {}) for name in ("requested", "effective", "environment", "metrics")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(f"{SUMMARY}: {name} is {type(part).__name__}, not an object")
    if summary["status"] == "completed":
        if not parts["metrics"]:
            raise ValueError(f"{SUMMARY}: completed, but without metrics")
        for name in (REQUESTS, STEPS):
            try:
                pq.read_metadata(folder / name)
            except FileNotFoundError:
                raise ValueError(f"{name} is missing") from None
            except MemoryError:  # pyarrow's is an ArrowException too, but the file is not damaged
                raise
            except (OSError, pa.ArrowException) as error:
                raise ValueError(f"{name} is damaged: {first_line(error)}") from error
    keys = dict(_flatten(parts["requested"]))
    keys |= {f"effective.{k}": v for k, v in _flatten(parts["effective"])}
    keys |= {f"environment.{k}": v for k, v in _flatten(parts["environment"])}
    metrics, odd = _split_metrics(parts["metrics"])
    return Cell(
        folder=folder,
        status=summary["status"],
        reason=printable(str(summary.get("reason", ""))),
        summary=summary,
        keys=keys,
        metrics=metrics,
        odd=odd,
    )


def read_json(path: Path) -> Any:
    """The JSON in `path`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, naming the file without its folder.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except RecursionError:
        raise ValueError(f"{path.name} cannot be read: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error


def first_line(error: Exception) -> str:
    """The text of `error` without what a library adds below it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _split_metrics(metrics: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics that are finite numbers, and what the others are. null means undefined and is in neither."""
    numbers: dict[str, float] = {}
    odd: dict[str, str] = {}
    for name, value in metrics.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and abs(value) <= sys.float_info.max:
            numbers[printable(name)] = float(value)
        elif value is not None:
            odd[printable(name)] = printable(str(value) if is_number else repr(value))[:60]
    return numbers, odd


def natural(value: Any) -> list[Any]:
    """A sort key that orders numbers by value, also inside texts: `cell2` before `cell10`, null before all."""
    if value is None:
        return [(0, 0.0, "")]
    if isinstance(value, bool | int | float):
        return [(1, float(value), "")]
    parts: list[Any] = []
    digits = ""
    for character in [*str(value), ""]:
        if character.isdigit() and character.isascii():
            digits += character
            continue
        if digits:
            parts.append((1, float(digits), ""))
            digits = ""
        if character:
            parts.append((2, 0.0, character))
    return parts


def _candidates(root: Path, damaged: list[Damaged]) -> Iterator[Path]:
    found = []

    def unreadable(error: OSError) -> None:
        damaged.append(Damaged(Path(error.filename), f"the folder cannot be read: {error.strerror}"))

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        traces = _TRACES_OF_A_CELL.intersection(files) or ".hydra" in subfolders
        if traces and (SUMMARY in files or SUPERSEDED not in files):
            found.append(Path(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name != "wandb"]
    return iter(sorted(found, key=lambda path: [natural(part) for part in path.parts]))


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Value]]:
    for name, value in node.items():
        key = printable(f"{prefix}{name}")
        if isinstance(value, dict):
            yield from _flatten(value, f"{key}.")
            continue
        if name == "name" and prefix.count(".") == 1:
            key = prefix[:-1]  # the choice of a group goes by the group's name
        if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= sys.float_info.max:
            value = str(value)  # NaN equals nothing, not even itself
        text = value if isinstance(value, Value) else json.dumps(value, ensure_ascii=False)
        yield key, printable(text) if isinstance(text, str) else text
