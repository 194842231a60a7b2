"""The command `servelab` (or `python -m framework`): run cells, compare what they left, and look at what there is."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import NoReturn

from framework import __version__
from framework.app.cli import check, compare, doctor, new, plugins, report, runs, wandb_workspace
from framework.config.quote import quote

OF_HYDRA = {
    "run": ("run one cell: servelab run scheduler=mlfq model=tiny", ()),
    "serve": ("serve over HTTP: servelab serve model=tiny serving.port=8000", ("workload=live",)),
    "replay": ("send a served session again: servelab replay RECORD executor=simulated", ()),
    "sweep": ("run every combination: servelab sweep scheduler=mlfq,fair 'seed=range(5)'", ("--multirun",)),
}
"""Commands whose arguments are Hydra's, with what they put in front: `servelab run` is `python run.py`."""


def replay_overrides(arguments: list[str]) -> list[str]:
    """`RECORD OVERRIDES...` as overrides.

    Raises:
        ValueError: the folder holds no served session.
    """
    if not arguments or "=" in arguments[0]:
        raise ValueError("replay needs the folder of a served session first: servelab replay outputs/.../")
    trace = Path(arguments[0]).expanduser().absolute() / "trace.jsonl"
    if not trace.is_file():
        raise ValueError(f"{trace} does not exist; only a record of workload=live can be replayed")
    return ["workload=trace", f"workload.path={quote(str(trace))}", *arguments[1:]]


class _Parser(argparse.ArgumentParser):
    """Says of a wrong command or flag what was probably meant."""

    def error(self, message: str) -> NoReturn:
        commands = [name for action in self._actions for name in action.choices or ()]
        known = [*self._option_string_actions, *map(str, commands)]
        wrong = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (\S+)", message)
        close = difflib.get_close_matches((wrong[1] or wrong[2]).partition("=")[0], known, n=2) if wrong else []
        super().error(message + (f" (did you mean {' or '.join(close)}?)" if close else ""))

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Of a command, refuse what is left over here, where its flags are known."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in OF_HYDRA:
        from framework.app.cli import run

        name, rest = arguments[0], arguments[1:]
        if name == "replay":
            try:
                rest = replay_overrides(rest)
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
        return run.main([*OF_HYDRA[name][1], *rest])
    program = "servelab" if sys.argv[0].endswith("servelab") else "python -m framework"
    parser = _Parser(prog=program, description=__doc__)
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
    runs.add_parser(commands)
    wandb_workspace.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
