"""`python -m framework report`: a sweep as one HTML page, for a browser without a network."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from framework.app.cli.compare import add_choices, choices


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("report", help="a sweep as one HTML page", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a sweep or a run")
    add_choices(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to; default: report.html in DIR")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is. Returns 0."""
    from framework.records.analysis import compare
    from framework.records.analysis.cells import find
    from framework.records.analysis.report import render
    from framework.records.atomic import write_text

    completed = any(cell.status == "completed" for cell in find([options.folder])[0])
    comparison = compare(options.folder, **choices(options)) if completed else None
    given = [
        word for name in ("baseline", "metric", "by") for text in getattr(options, name) for word in (f"--{name}", text)
    ]
    given += ["--all-columns"] if options.all_columns else []
    given += ["--correction", options.correction] if options.correction != "none" else []
    command = shlex.join(["python", "-m", "framework", "report", str(options.folder), *given])
    text = render(options.folder, comparison, command)
    out = options.out or options.folder / "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror}; choose another file with --out") from error
    print(f"report: {out} ({len(text) / 1e6:.1f} MB)")
    return 0
