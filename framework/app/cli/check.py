"""`python -m framework check scheduler=my_policy`: whether a plugin keeps the rules of its interface.

It prints a row per rule, and the smallest failing case for each rule that does not hold. It takes any kind (scheduler,
eviction, sampler, attention, graph, cost_model, router, predictor, family), with parameters (scheduler.aging=2), from
any source (plugins=[./my.py]).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from framework.conformance import Finding

_STYLES = {"holds": "green", "fails": "bold red", "skipped": "yellow"}


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("check", help="check that a plugin keeps the rules", description=__doc__)
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="as for run.py, such as scheduler=my_policy")
    parser.add_argument("--examples", type=int, default=60, metavar="N", help="random cases a rule (60)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report. Returns 1 if a rule does not hold, else 0.

    Raises:
        ValueError: the configuration does not compose, or names no plugin.
    """
    from framework.conformance import Budget, check_plugins  # they load torch and Hypothesis

    if options.examples < 1:
        raise ValueError(f"--examples={options.examples} must be at least 1")
    started_s = time.monotonic()
    report = check_plugins(options.overrides, Budget(num_examples=options.examples))
    # Piped, the lines must not be folded at 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for plugin, findings in report.items():
        _print(console, plugin, findings)
    console.print(f"{time.monotonic() - started_s:.1f} s")
    return 1 if any(finding.status == "fails" for findings in report.values() for finding in findings) else 0


def _print(console: Console, plugin: str, findings: list[Finding]) -> None:
    table = Table("rule", "result", "what was tried or measured", title=plugin, title_justify="left")
    for finding in findings:
        detail = finding.detail if finding.status != "fails" else "see below"
        table.add_row(escape(finding.rule), finding.status, escape(detail), style=_STYLES[finding.status])
    console.print(table)
    for finding in findings:
        if finding.status == "fails":
            console.print(f"\n{finding.rule}: the smallest failing case", style="bold", markup=False)
            console.print(finding.detail, markup=False)
