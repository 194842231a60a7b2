"""The cells of a sweep as its page shows them: their differences, what they share, and why some failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.records.analysis.cells import Cell, Damaged, first_line, natural
from framework.records.analysis.escape import printable
from framework.records.analysis.grouping import show
from framework.records.analysis.metric_names import show_number
from framework.records.reasons import listed, once_per_reason
from framework.records.record import ERROR
from framework.toolkit.read_file import read_yaml

Notes = Mapping[str, Mapping[str, Any]]
"""The entry of each cell in `sweep.json`, by its folder."""
_STATUSES = ("completed", "failed", "lost", "damaged", "interrupted", "skipped", "running", "waiting")


def rank(status: str) -> int:
    """The order in which a reader wants to see the states of cells."""
    return _STATUSES.index(status) if status in _STATUSES else len(_STATUSES)


def problems(folder: Path, cells: Sequence[Cell], damaged: Sequence[Damaged], notes: Notes) -> list[dict[str, str]]:
    """The cells that did not complete, and why: `folder`, `status`, `reason`, `traceback`."""
    found = []
    for cell in sorted(cells, key=lambda cell: (rank(cell.status), natural(str(cell.folder)))):
        if cell.status != "completed":
            place = place_of(cell.folder, folder)
            about = {"folder": place, "status": cell.status, "reason": cell.reason}
            found.append({**about, "traceback": _traceback(cell.folder / ERROR)})
    found = _once_per_reason(found) + damages(folder, damaged)
    folders = [*(cell.folder for cell in cells), *(one.folder for one in damaged)]
    seen = {place_of(path, folder) for path in folders}
    for place, note in notes.items():
        if place not in seen:
            why = " ".join(str(note[name]) for name in ("status", "reason") if note.get(name))
            pending = note.get("status") in ("running", "waiting")
            status, reason = (why, "no record yet") if pending else ("lost", f"it left no record; {why}")
            found.append({"folder": place, "status": status, "reason": reason})
    return found


def _once_per_reason(found: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of cells, those of skipped ones last and one for each reason."""
    skipped = once_per_reason((one["folder"], one["reason"]) for one in found if one["status"] == "skipped")
    rows = [{"folder": listed(names), "status": "skipped", "reason": reason} for reason, names in skipped]
    return [one for one in found if one["status"] != "skipped"] + rows


def damages(folder: Path, damaged: Sequence[Damaged]) -> list[dict[str, str]]:
    """The records that could not be read, in the form of `problems`."""
    return [{"folder": place_of(one.folder, folder), "status": "damaged", "reason": one.why} for one in damaged]


def _traceback(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        return printable(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def describe(cell: Cell, folder: Path, keys: Sequence[str], metrics: Sequence[str], notes: Notes) -> dict[str, Any]:
    """One row of the table of cells, and what opens below it."""
    place = place_of(cell.folder, folder)
    wall_s = notes.get(place, {}).get("wall_s")
    timed = [("wall_s", show_number(wall_s))] if isinstance(wall_s, int | float) else []
    effective = [(k.removeprefix("effective."), show(v)) for k, v in cell.keys.items() if k.startswith("effective.")]
    return {
        "folder": place,
        "status": cell.status,
        "reason": cell.reason,
        "chosen": [show(cell.keys.get(key, "-")) for key in keys],
        "numbers": [(show_number(cell.metrics.get(m)), cell.metrics.get(m, "")) for m in metrics],
        "metrics": [*timed, *((name, show_number(value)) for name, value in cell.metrics.items())],
        "effective": effective,
        "overrides": " ".join(_overrides(cell.folder)),
        "path": str(cell.folder.resolve()),
    }


def _overrides(folder: Path) -> list[str]:
    """What the command line changed. It is only a convenience, since the configuration is in the record."""
    try:
        found = read_yaml(folder / ".hydra" / "overrides.yaml")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"(.hydra/overrides.yaml cannot be read: {first_line(error)})"]
    return [printable(str(item)) for item in found] if isinstance(found, list) else []


def place_of(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`."""
    return printable(str(path.relative_to(folder))) if path != folder else "."


def counted(cells: Sequence[Cell], key: str) -> str:
    """The values of `key` and how many cells have each."""
    counts = Counter(show(cell.keys.get(key, "-")) for cell in cells)
    return ", ".join(f"{value} ({counts[value]})" for value in sorted(counts, key=natural))


def common_keys(cells: Sequence[Cell], *, environment: bool) -> list[tuple[str, str]]:
    """Keys with one value in all cells that have them."""
    values: dict[str, set[str]] = {}
    for cell in cells:
        for key, value in cell.keys.items():
            if key.startswith("environment.") == environment and not key.startswith("effective."):
                values.setdefault(key, set()).add(show(value))
    return [(key.removeprefix("environment."), one.pop()) for key, one in values.items() if len(one) == 1]


def environment_differences(cells: Sequence[Cell]) -> list[str]:
    """A sentence for each part of the environment that was not the same for all completed cells."""
    keys = dict.fromkeys(key for cell in cells for key in cell.keys if key.startswith("environment."))
    ran = [cell for cell in cells if cell.status == "completed"]
    return [
        f"{key.removeprefix('environment.')} differs: {counted(ran, key)}"
        for key in keys
        if len({show(cell.keys.get(key, "-")) for cell in ran}) > 1
    ]
