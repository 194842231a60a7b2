"""`python -m framework COMMAND`: what there is to choose from, what this machine can run, what runs showed."""

from __future__ import annotations

import argparse
import sys

from framework.app.cli import check, compare, doctor, new, plugins, report, wandb_workspace


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m framework", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    plugins.add_parser(commands)
    doctor.add_parser(commands)
    new.add_parser(commands)
    check.add_parser(commands)
    compare.add_parser(commands)
    report.add_parser(commands)
    wandb_workspace.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
