"""Finds the records below folders and flattens them: a cell is a folder, its keys and its metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framework.records.record import REQUESTS, STEPS, SUMMARY, SUPERSEDED
from framework.toolkit.read_file import read_json

Value = str | int | float | bool | None
_TRACES_OF_A_CELL = {SUMMARY, REQUESTS, STEPS, ".hydra"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One record, without its rows."""

    folder: Path
    status: str
    reason: str = ""
    summary: dict[str, Any] = field(default_factory=dict, repr=False)
    """`summary.json` as it is."""
    keys: dict[str, Value] = field(default_factory=dict, repr=False)
    """The configuration that was asked for, dotted (`engine.num_blocks`); `scheduler` stands for `scheduler.name`.
    What came out of it and where it ran are `effective.*` and `environment.*`."""
    metrics: dict[str, float] = field(default_factory=dict, repr=False)
    """Those that are defined."""

    @property
    def requests(self) -> Path:
        return self.folder / REQUESTS

    @property
    def steps(self) -> Path:
        return self.folder / STEPS


@dataclass(frozen=True, slots=True)
class Damaged:
    """A folder that holds a part of a record, or one that cannot be read, and why."""

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
        for folder in _candidates(root):
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
    return cells, damaged


def read_cell(folder: Path) -> Cell:
    """The record in `folder`, its tables checked but not read.

    Raises:
        ValueError: when a part is missing or damaged, saying which.
    """
    try:
        summary = read_json(folder / SUMMARY)
    except FileNotFoundError:
        raise ValueError(f"no {SUMMARY}: the cell never finished, or runs still") from None
    except ValueError as error:
        raise ValueError(f"{SUMMARY} cannot be read: {error}") from error
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
                raise ValueError(f"{name} is damaged: {str(error).splitlines()[0]}") from error
    keys = dict(_flatten(parts["requested"]))
    keys |= {f"effective.{k}": v for k, v in _flatten(parts["effective"])}
    keys |= {f"environment.{k}": v for k, v in _flatten(parts["environment"])}
    return Cell(
        folder=folder,
        status=summary["status"],
        reason=str(summary.get("reason", "")),
        summary=summary,
        keys=keys,
        metrics={k: float(v) for k, v in parts["metrics"].items() if isinstance(v, int | float)},
    )


def natural(value: Any) -> list[Any]:
    """A key that sorts numbers by value, also inside of texts: `cell2` before `cell10`, null before all."""
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


def _candidates(root: Path) -> Iterator[Path]:
    found = []
    for folder, subfolders, files in os.walk(root):
        traces = _TRACES_OF_A_CELL.intersection(files) or ".hydra" in subfolders
        if traces and (SUMMARY in files or SUPERSEDED not in files):
            found.append(Path(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name != "wandb"]
    return iter(sorted(found, key=lambda path: [natural(part) for part in path.parts]))


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Value]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{key}.")
        elif name == "name" and prefix and prefix.count(".") == 1:
            yield prefix[:-1], value  # the choice of a group goes by the group's name
        else:
            yield key, value if isinstance(value, Value) else json.dumps(value, ensure_ascii=False)
