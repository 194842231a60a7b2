"""`servelab runs`: a table of records of any kind."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("runs", help="a table of records, whatever they are", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder of runs or sweeps; all below it is read")
    parser.add_argument("--metric", action="append", default=[], metavar="NAME", help="such as ttft_s/p99; repeatable")
    parser.add_argument(
        "--key", action="append", default=[], metavar="KEY", help="such as engine.num_blocks; repeatable"
    )
    parser.add_argument("--csv", action="store_true", help="every key and metric, as CSV")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table. Returns 0."""
    from framework.records.analysis import load
    from framework.records.analysis.cells import find
    from framework.records.analysis.runs import print_runs

    if options.csv:
        load(options.folders).to_csv(sys.stdout, index=False)
        return 0
    cells, damaged = find(options.folders)
    print_runs(cells, damaged, keys=_split(options.key), metrics=_split(options.metric))
    return 0


def _split(texts: list[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]
