"""`capacity.json` and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from framework.app.launching.capacity.bracket import SHORT, Outcome, Search, answer, next_load
from framework.records.atomic import write_text

RESULT = "capacity.json"
UNITS = {"workload.rate_per_s": "requests/s", "workload.max_concurrency": "requests at once"}
"""The keys that a search can raise, and what they count."""


@dataclass(slots=True, kw_only=True)
class CellSearch:
    """The search in one cell."""

    overrides: list[str]
    slo: dict[str, Any] | None = None
    """The objectives of the cell; None of one that does not compose."""
    outcomes: dict[float, Outcome] = field(default_factory=dict)
    folders: dict[float, list[str]] = field(default_factory=dict)
    """The folders of the records at each load, below that of the sweep."""
    problem: str = ""
    """Why the search ended without a result, if a cell failed or was skipped."""

    def row(self, search: Search) -> dict[str, Any]:
        """The result as it is in `capacity.json`."""
        found = asdict(answer(search, self.outcomes))
        if self.problem:
            found |= dict.fromkeys(found, None) | {"is_noisy": False}
        following = self.following(search)
        if following is not None:
            found["is_noisy"] = False  # what limits the answer is that the search has not ended
        probes = [
            {
                "load": load,
                "attainment": [met / total for met, total in zip(one.met, one.total, strict=True)],
                "reaches_goal": one.reaches(search.goal),
                "is_certain": one.is_certain(search.goal),
                "kept_up": one.kept_up,
                "folders": self.folders[load],
            }
            for load, one in sorted(self.outcomes.items())
        ]
        return {
            "overrides": self.overrides,
            "slo": self.slo,
            **found,
            "next_load": following,
            "note": self._note(search),
            "probes": probes,
        }

    def following(self, search: Search) -> float | None:
        """The load to try next; None when the search in this cell has ended."""
        return None if self.problem else next_load(search, self.outcomes)

    def _note(self, search: Search) -> str:
        if self.problem:
            return self.problem
        following = self.following(search)
        if following is not None:
            return (
                f"the search was cut short before it tried {following:g}, so that the capacity is open; "
                "resume=DIR with the folder of the sweep goes on"
            )
        found = answer(search, self.outcomes)
        if found.capacity is None:
            return (
                f"missed at every load down to {search.lowest:g}; loosen the limits (slo.*), lower hydra.sweeper.goal, "
                "or lower hydra.sweeper.lowest"
            )
        if found.missed_at is None:
            if not self.outcomes[found.capacity].is_flooded:
                return f"met at every load up to hydra.sweeper.highest={search.highest:g}; raise it"
            return (
                f"met at every load up to {found.capacity:g}, where all requests are there long before the first ones "
                "are served: the run is too short to show a limit; raise workload.num_requests, or tighten slo.*"
            )
        notes = []
        kept_up = self.outcomes[found.capacity].kept_up
        if kept_up < SHORT:
            notes.append(
                f"the run is too short: requests were served at {kept_up:.0%} of the rate at which they came, so that "
                "a longer one may have a lower capacity; raise workload.num_requests"
            )
        if found.is_noisy:
            low = f"below {min(self.outcomes):g}" if found.certain_below is None else f"{found.certain_below:g}"
            high = f"above {max(self.outcomes):g}" if found.certain_above is None else f"{found.certain_above:g}"
            notes.append(
                f"bracketed by noise: for certain only between {low} and {high}; raise hydra.sweeper.repeats or "
                "workload.num_requests"
            )
        return "; ".join(notes)


def write_result(folder: Path, key: str, search: Search, cells: Sequence[CellSearch]) -> None:
    """Write `capacity.json` below the folder of the sweep."""
    values = {
        "load": key,
        "unit": UNITS[key],
        "goal": search.goal,
        "tolerance": search.tolerance,
        "cells": [cell.row(search) for cell in cells],
    }
    write_text(folder / RESULT, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def print_result(key: str, search: Search, cells: Sequence[CellSearch], console: Console | None = None) -> None:
    """Print one line per cell, and the notes of cells whose capacity is not what it seems."""
    console = console or Console()
    common = set.intersection(*(set(cell.overrides) for cell in cells)) if len(cells) > 1 else set()
    title = f"Capacity ({UNITS[key]}): {search.goal:.4g} of all requests meet their objectives"
    table = Table("cell", title=title, title_justify="left")
    for name in ("capacity", "missed at", "loads tried"):
        table.add_column(name, justify="right")
    notes = []
    for cell in cells:
        row = cell.row(search)
        name = " ".join(text for text in cell.overrides if text not in common) or "the cell"
        mark = ""
        if row["note"]:
            notes.append(f"{name}: {row['note']}")
            mark = f" [{len(notes)}]"
        is_open = row["next_load"] is not None
        if row["capacity"] is None:
            capacity = "open" if is_open else "none"
        else:
            capacity = f"{row['capacity']:g}"
            if is_open or row["missed_at"] is None:
                capacity = f"at least {capacity}"
        missed = "" if row["missed_at"] is None else f"{row['missed_at']:g}"
        table.add_row(name.replace("[", "\\["), (capacity + mark).replace("[", "\\["), missed, str(len(cell.outcomes)))
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(f"[{number}] {note}", markup=False, highlight=False, soft_wrap=True)
