"""`sweep.json`: the description of a sweep and the state of each of its cells."""

from __future__ import annotations

import getpass
import json
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from framework.toolkit.read_file import read_json

SWEEP = "sweep.json"
WRITE_INTERVAL_S = 1.0


@dataclass(slots=True, kw_only=True)
class Cell:
    """One cell of a sweep."""

    folder: str
    """The folder of the cell, below that of the sweep."""
    overrides: list[str]
    """The overrides that tell it from other cells, and all else that the command line changed."""
    status: str = "waiting"
    """waiting, running, or the status in the cell's record."""
    reason: str = ""
    """Why the cell is not completed, or what went wrong after its record was complete."""
    wall_s: float | None = None
    """Seconds from the start of the cell's process to its end."""
    gpus: list[str] = field(default_factory=list)
    reused: bool = False
    """Whether the record is from an earlier run of this sweep: completed then, or not asked for this time."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    """A sweep, written to `folder/sweep.json`."""

    folder: Path
    study: str = ""
    launcher: str = ""
    arguments: list[str] = field(default_factory=list)
    """The overrides of the command line, as typed."""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    ended: str = ""
    made_at: str = ""
    """The user, machine and folder of the process that made the sweep."""
    problem: str = ""
    """Why the sweep has no result although its cells may have ended well, or why it stopped."""
    cells: list[Cell] = field(default_factory=list)
    _written_s: float = float("-inf")

    def write(self, *, now: bool = True) -> None:
        """Write the file, atomically; with `now=False` at most once per second.

        What cannot be written (the disk is full) is in `problem` and ends nothing: the cells go on.
        """
        _live[self.folder] = self
        if not now and time.monotonic() - self._written_s < WRITE_INTERVAL_S:
            return
        from framework.records.atomic import write_text

        values: dict[str, Any] = {name: getattr(self, name) for name in _IN_FILE}
        values["counts"] = dict(Counter(cell.status for cell in self.cells))
        values["cells"] = [asdict(cell) for cell in self.cells]
        self._written_s = time.monotonic()
        try:
            write_text(self.folder / SWEEP, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            self.problem = self.problem or f"{self.folder / SWEEP} cannot be written: {error.strerror or error}"

    def end(self) -> None:
        """Write it for the last time."""
        self.ended = datetime.now(UTC).isoformat(timespec="seconds")
        self.write()


_IN_FILE = ("study", "launcher", "arguments", "started", "ended", "made_at", "problem")


_live: dict[Path, Sweep] = {}
"""The sweep in each folder that this process wrote last, or could not write."""


def live_sweep(folder: Path) -> Sweep | None:
    """The sweep in `folder` as this process knows it, or else as its file has it."""
    return _live.get(folder) or read_sweep(folder)


def here(folder: Path) -> str:
    """`made_at` of a sweep that this process would make in `folder`."""
    return f"{getpass.getuser()}@{platform.node()}:{folder.resolve()}"


def read_sweep(folder: Path) -> Sweep | None:
    """The sweep in `folder`; None if it has no file.

    Raises:
        ValueError: naming a file that cannot be read.
    """
    path = folder / SWEEP
    try:
        values = read_json(path)
        _check_types(values)
        cells = [Cell(**cell) for cell in values["cells"]]
        sweep = Sweep(folder=folder, cells=cells, **{name: values[name] for name in _IN_FILE if name in values})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path} cannot be read: {why}; move it away to do without it") from error
    _check_inside(folder, cells)
    return sweep


def _check_inside(folder: Path, cells: Sequence[Cell]) -> None:
    """Refuse a file that names folders elsewhere: what lies there would be written over."""
    top = folder.resolve()
    for cell in cells:
        place = (folder / cell.folder).resolve()  # of a link, where it leads
        if place == top or not place.is_relative_to(top):
            raise ValueError(
                f"{folder / SWEEP} names the folder {cell.folder!r}, which is not below {folder}; nothing was written"
            )


def _check_types(values: Any) -> None:
    """Raises ValueError for values of other types than `Sweep.write` writes."""
    texts, lists = ("study", "launcher", "started", "ended"), ("arguments", "cells")
    wrong: list[Any] = [values] if not isinstance(values, dict) else []
    if not wrong:
        wrong += [name for name in texts if not isinstance(values.get(name, ""), str)]
        wrong += [name for name in lists if not isinstance(values.get(name, []), list)]
    if not wrong:
        wrong += [cell for cell in values.get("cells", []) if not _is_cell(cell)]
    if wrong:
        raise ValueError(f"{str(wrong[0])[:60]!r} is not what a sweep writes")


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict):
        return False
    texts, lists = ("folder", "status", "reason"), ("overrides", "gpus")
    wall_s = cell.get("wall_s")
    return (
        all(isinstance(cell.get(name, ""), str) for name in texts)
        and all(isinstance(cell.get(name, []), list) for name in lists)
        and all(isinstance(text, str) for name in lists for text in cell.get(name, []))
        and (wall_s is None or (isinstance(wall_s, int | float) and not isinstance(wall_s, bool)))
        and isinstance(cell.get("reused", False), bool)
    )
