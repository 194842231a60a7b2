"""Which cells of a sweep an earlier run of it completed, and in which folders the others go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.app.launching.ending import read_summary
from framework.app.launching.resume_key import config_key, resume_key
from framework.app.launching.sweep_file import Cell, read_sweep
from framework.records.analysis.cells import read_cell
from framework.records.record import SUMMARY, SUPERSEDED
from framework.records.tracking.offline_runs import set_aside_offline_runs
from framework.toolkit.read_file import read_yaml


def own_overrides(folder: Path) -> list[str]:
    """The overrides that Hydra noted for the cell in `folder`.

    Raises:
        ValueError: naming a file that cannot be read.
    """
    path = folder / ".hydra" / "overrides.yaml"
    if not path.exists():
        return []
    found = read_yaml(path)
    if not isinstance(found, list):
        raise ValueError(f"{path} must hold a list of overrides, not {type(found).__name__}; move {folder} away")
    return [str(item) for item in found]


class Earlier:
    """The records below `folder` as they are now, and the numbers of its folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._completed: dict[str, list[str]] = {}
        self._latest: dict[str, list[tuple[str, str]]] = {}
        begun = read_sweep(folder)
        self._begun = {tuple(cell.overrides): cell.folder for cell in begun.cells} if begun else {}
        """Where the cells without a whole record were to run."""
        self.cells: dict[str, Cell] = {}
        """The cells that are not run again, by folder."""
        for path in sorted(folder.rglob(SUMMARY)):
            summary = read_summary(path.parent)
            if summary is None:
                continue
            where, status = str(path.parent.relative_to(folder)), str(summary["status"])
            try:
                read_cell(path.parent)
            except ValueError as error:
                print(f"{path.parent}: {error}; it counts as not completed")
                status = "damaged"
            if status == "completed" and summary.get("resume_key"):
                self._completed.setdefault(summary["resume_key"], []).append(where)
            about = Cell(folder=where, overrides=own_overrides(path.parent), status=status, reused=True)
            about.reason = str(summary["reason"])
            self.cells[where] = about
            self._begun = {own: place for own, place in self._begun.items() if place != where}
            self._latest.setdefault(config_key(summary.get("requested") or {}), []).append((where, status))
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        numbers = [int(name) for name in (*names, *self._begun.values()) if name.isdigit()]
        self._next = max(numbers, default=-1) + 1

    def completed(self, config: Mapping[str, Any]) -> str | None:
        """Folder of the completed record of this very cell: same configuration, same content of the files that
        it reads, same code; None if there is none.

        A record stands for one cell: of two that differ in their tracker or arm only, each needs its own.
        """
        places = self._completed.get(resume_key(config)) if self._completed else None
        if not places:
            return None
        for same in self._latest.values():  # its paths may differ, so that it is not among its own
            if (places[0], "completed") in same:
                same.remove((places[0], "completed"))
        return places.pop(0)

    def folder_for(self, config: Mapping[str, Any], overrides: Sequence[str] = ()) -> str:
        """The folder in which the cell runs: that of its record which did not complete, or, if it left none, the one
        that `sweep.json` names for its overrides; else the next number.

        A completed record of the same configuration by other code, or with other content of its files, stays where it
        is, as `superseded.json`, so that the sweep has one record of the cell.
        """
        same = self._latest.get(config_key(config)) if self._latest else None
        where, status = same.pop(0) if same else ("", "")
        self.cells.pop(where, None)
        if where and status != "completed":
            return where
        if where:
            (self.folder / where / SUMMARY).rename(self.folder / where / SUPERSEDED)
            set_aside_offline_runs(self.folder / where)
            print(
                f"{self.folder / where}: completed by other code or with other input files; its summary is now "
                f"{SUPERSEDED}"
            )
        elif begun := self._begun.pop(tuple(overrides), ""):
            return begun
        self._next += 1
        return str(self._next - 1)
