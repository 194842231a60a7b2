"""A sweep as one HTML page that needs no network and no other file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

import framework
from framework.records.analysis import report_cells
from framework.records.analysis.cells import Cell, find, read_json
from framework.records.analysis.comparison import Comparison
from framework.records.analysis.figures.inline import drawn
from framework.records.analysis.grouping import differing_keys
from framework.records.analysis.metric_names import default_metrics
from framework.records.analysis.report_comparison import summarized

_PAGE = Path(__file__).parent / "page"


def render(folder: Path, comparison: Comparison | None, command: str) -> str:
    """The page of the sweep in `folder`.

    Args:
        folder: of a sweep or a run.
        comparison: of its completed cells; None when there are none.
        command: how this page was made, for its last line.

    Raises:
        ValueError: `folder` holds no readable record.
    """
    cells, damaged = find([folder])
    sweep, sweep_problem = _sweep_file(folder)
    notes = {str(one.get("folder")): one for one in _list(sweep, "cells") if isinstance(one, dict)}
    problems = report_cells.problems(folder, cells, damaged, notes)
    keys = differing_keys(cells)
    metrics = comparison.metrics if comparison else default_metrics(cells)
    statuses = Counter(["completed"] * sum(cell.status == "completed" for cell in cells))
    statuses.update(problem["status"] for problem in problems)
    figures = [] if comparison is None else drawn(comparison)
    unreadable = [] if comparison is None else [one for one in comparison.damaged if one not in damaged]
    problems += report_cells.damages(folder, unreadable)
    if sweep_problem:
        problems.append({"folder": ".", "status": "damaged", "reason": sweep_problem})
    optional = {"comparison": comparison, "problems": problems, "figures": figures}
    shown = [name for name, content in optional.items() if content] + ["cells", "configuration", "environment"]
    environment = Environment(loader=FileSystemLoader(_PAGE), autoescape=select_autoescape(), trim_blocks=True)
    return environment.get_template("page.html").render(
        title=(str(sweep.get("study") or "") or folder.resolve().name) + _simulated(cells),
        about=_about(folder, sweep, cells),
        counts=sorted(statuses.items(), key=lambda item: report_cells.rank(item[0])),
        sections=[(name, "Not completed" if name == "problems" else name.capitalize()) for name in shown],
        comparison=comparison and summarized(comparison),
        problems=problems,
        figures=figures,
        cell_columns=[
            *(("cell", False), ("status", False)),
            *((key, False) for key in keys),
            *((metric, True) for metric in metrics),
        ],
        cells=[report_cells.describe(cell, folder, keys, metrics, notes) for cell in cells],
        differing=[(key, report_cells.counted(cells, key)) for key in keys],
        common=report_cells.common_keys(cells, environment=False),
        environment=report_cells.common_keys(cells, environment=True),
        environment_differences=report_cells.environment_differences(cells),
        css=Markup((_PAGE / "page.css").read_text(encoding="utf-8")),
        js=Markup((_PAGE / "page.js").read_text(encoding="utf-8")),
        version=framework.__version__,
        command=command,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _simulated(cells: Sequence[Cell]) -> str:
    """The end of the title where no device ran any of the completed cells."""
    ran = [str(cell.keys.get("effective.device", "")) for cell in cells if cell.status == "completed"]
    return " (simulated)" if ran and all(device.startswith("simulated ") for device in ran) else ""


def _sweep_file(folder: Path) -> tuple[dict[str, Any], str]:
    """`sweep.json`, which a launcher leaves, and why it cannot be used; the records are complete without it."""
    try:
        values = read_json(folder / "sweep.json")
    except FileNotFoundError:
        return {}, ""
    except ValueError as error:
        return {}, f"{error}; cells that left no record are not known without it"
    if not isinstance(values, dict):
        return {}, "sweep.json holds no object; cells that left no record are not known without it"
    return values, ""


def _list(sweep: dict[str, Any], name: str) -> list[Any]:
    return found if isinstance(found := sweep.get(name), list) else []


def _about(folder: Path, sweep: dict[str, Any], cells: Sequence[Cell]) -> list[tuple[str, str]]:
    questions = dict.fromkeys(str(cell.keys.get("study.question") or "") for cell in cells)
    about = [("question", question) for question in questions if question]
    about.append(("folder", str(folder.resolve())))
    if arguments := _list(sweep, "arguments"):
        about.append(("started with", shlex.join(["python", "run.py", "-m", *map(str, arguments)])))
    times = " to ".join(str(sweep[name]) for name in ("started", "ended") if sweep.get(name))
    if times:
        about.append(("time", f"{times}, launcher {sweep.get('launcher', '?')}"))
    ran = [cell for cell in cells if cell.status == "completed"]
    devices = (cell.keys.get("environment.device_name") or cell.keys.get("effective.device") or "?" for cell in ran)
    names = dict.fromkeys(map(str, devices))
    return [*about, ("device", ", ".join(names))] if names else about
