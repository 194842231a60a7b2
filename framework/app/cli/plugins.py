"""`python -m framework plugins`: every plugin with its parameters, first line of documentation and file."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from framework.registry import REGISTRIES, Entry, discovery


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("plugins", help="list every plugin", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=sorted(REGISTRIES), help="only this kind")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plugins", nargs="*", default=[], metavar="FILE", help="further files or modules")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list. Returns 0, or 1 if a plugin could not be imported."""
    discovery.discover(options.plugins)
    entries = [e for kind, r in REGISTRIES.items() if options.kind in (None, kind) for e in r.entries()]
    if options.json:
        broken = [{"source": b.source, "names": sorted(set(b.names)), "error": b.summary} for b in discovery.broken()]
        print(json.dumps({"plugins": [describe(entry) for entry in entries], "broken": broken}, indent=2))
    else:
        _print(entries)
    return 1 if discovery.broken() else 0


def describe(entry: Entry) -> dict[str, Any]:
    """A plugin as plain values. A parameter without a default has no key `default`."""
    parameters = []
    for parameter in entry.parameters:
        described = {"name": parameter.name, "type": parameter.type_name}
        if not parameter.required:
            described["default"] = getattr(
                parameter.default_value, "name", parameter.default_value
            )  # an Enum goes by its name
        parameters.append(described)
    paragraph = " ".join(entry.doc.partition("\n\n")[0].split())
    doc = re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0]  # the first sentence, however it is wrapped
    return {"kind": entry.kind, "name": entry.name, "parameters": parameters, "doc": doc, "file": _short(entry.file)}


def _print(entries: list[Entry]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # piped: do not fold at 80 columns
    table = Table("kind", "name", "parameters", "what it is", "file", show_lines=True)
    for entry in entries:
        row = describe(entry)
        parameters = "\n".join(
            f"{p['name']}: {p['type']}" + (f" = {p['default']}" if "default" in p else " (required)")
            for p in row["parameters"]
        )
        table.add_row(*(_plain(text) for text in (row["kind"], row["name"], parameters, row["doc"], row["file"])))
    console.print(table)
    for plugin in discovery.broken():
        console.print(f"broken: {plugin.message()}", style="red", markup=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")  # not markup


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(discovery.ROOT)) if path.is_relative_to(discovery.ROOT) else file
