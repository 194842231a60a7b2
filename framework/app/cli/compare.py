"""`python -m framework compare`: the cells of one or more sweeps, with intervals and what is only noise."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("compare", help="compare the records of sweeps", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder of a run or a sweep; all below it is read")
    add_choices(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write CSV, Markdown and figures there")
    parser.add_argument("--format", choices=("svg", "png", "pdf"), default="svg", help="of the figures")
    parser.set_defaults(run=run)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is compared with what."""
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what to compare with; repeat, or join by ,",
    )
    parser.add_argument("--metric", action="append", default=[], metavar="NAME", help="such as ttft_s/p99; repeatable")
    parser.add_argument("--by", action="append", default=[], metavar="KEYS", help="such as scheduler,eviction")
    parser.add_argument("--all-columns", action="store_true", help="show every key that differs, however many")
    parser.add_argument("--correction", choices=("none", "holm"), default="none", help="for many comparisons")


def choices(options: argparse.Namespace) -> dict[str, Any]:
    """These options as arguments of `framework.records.analysis.compare`."""
    return {
        "baseline": options.baseline,
        "metrics": _split(options.metric),
        "by": _split(options.by),
        "correction": options.correction,
        "all_columns": options.all_columns,
    }


def run(options: argparse.Namespace) -> int:
    """Print the tables and write what `--out` asks for. Returns 0."""
    from framework.records.analysis import compare
    from framework.records.analysis.tables import print_comparison, write_tables

    comparison = compare(options.folders, **choices(options))
    print_comparison(comparison)
    told = len(comparison.damaged)
    if options.out is not None:
        from framework.records.analysis.figures import write_figures

        try:
            options.out.mkdir(parents=True, exist_ok=True)
            figures = write_figures(comparison, options.out, options.format)
            written = [*write_tables(comparison, options.out), *figures]
        except OSError as error:
            raise ValueError(f"--out {options.out}: {error.strerror}; choose a folder that can be written") from error
        for one in comparison.damaged[told:]:
            print(f"left out of the figures: {one}", file=sys.stderr)
        print("written: " + ", ".join(map(str, written)), file=sys.stderr)
    return 0


def _split(texts: list[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]
