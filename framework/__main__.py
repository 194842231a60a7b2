"""The command `servelab` (or `python -m framework`): run cells, compare what they left, and look at what there is."""

from __future__ import annotations

import argparse
import sys

from framework import __version__
from framework.app.cli import check, compare, doctor, new, plugins, report, wandb_workspace

OF_HYDRA = {
    "run": ("run one cell: servelab run scheduler=mlfq model=tiny", ()),
    "sweep": ("run every combination: servelab sweep scheduler=mlfq,fair 'seed=range(5)'", ("--multirun",)),
}
"""Commands whose arguments are Hydra's, with what they put in front: `servelab run` is `python run.py`."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in OF_HYDRA:
        from framework.app.cli import run

        return run.main([*OF_HYDRA[arguments[0]][1], *arguments[1:]])
    program = "servelab" if sys.argv[0].endswith("servelab") else "python -m framework"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--version", action="version", version=f"ServeLab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, _) in OF_HYDRA.items():
        commands.add_parser(name, help=text)
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
