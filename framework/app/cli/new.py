"""`python -m framework new scheduler my_policy`: writes a plugin that works, to be changed, and its test."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from framework.app.cli.templates import TEMPLATES, TEST
from framework.registry import REGISTRIES
from framework.registry.discovery import ROOT, discover

FOLDERS = {
    "scheduler": "schedulers",
    "eviction": "eviction",
    "attention": "attention",
    "sampler": "samplers",
    "graph": "graphs",
    "cost_model": "cost_models",
    "router": "routers",
    "predictor": "predictors",
    "family": "models",
}
_ALIASES = {"model": "family"}
"""Another word for a kind"""
_RUNS_IN = {
    "cost_model": " executor=simulated workload=synthetic",
    "router": " executor=simulated executor.replicas=4 workload=synthetic",
    "predictor": " executor=simulated scheduler=shortest_first workload=synthetic",
    "family": " model=custom model.path=FOLDER",
}
"""What a run needs to use the plugin, if the default does not use it."""


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("new", help="write a new plugin and its test", description=__doc__)
    parser.add_argument("kind", choices=sorted({*FOLDERS, *_ALIASES}), help="what it is")
    parser.add_argument("name", help="how it is chosen on the command line: a-z, 0-9 and _")
    parser.add_argument("--path", type=Path, metavar="DIR", help="folder for both files; else plugins/ and tests/")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write both files and say what to do next.

    Raises:
        ValueError: the name is taken or malformed, or a file exists.
    """
    kind, name, folder = _ALIASES.get(options.kind, options.kind), options.name, options.path
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(f"{name!r}: a name holds a-z, 0-9 and _ only and begins with a letter, such as my_policy")
    discover()
    if name in REGISTRIES[kind].names():
        raise ValueError(f"{kind}={name} exists ({REGISTRIES[kind].entry(name).file}); choose another name")
    plugin = (folder or ROOT / "plugins" / FOLDERS[kind]) / f"{name}.py"
    test = (folder or ROOT / "tests" / FOLDERS[kind]) / f"test_{name}.py"
    for path in (plugin, test):
        if path.exists():
            raise ValueError(f"{path} exists; remove it or choose another name")
    listed = f", f\"plugins=[{{Path(__file__).parent / '{plugin.name}'}}]\"" if folder else ""
    values = {"name": name, "class_name": "".join(part.title() for part in name.split("_")), "kind": kind}
    _write(plugin, TEMPLATES[kind].format(**values))
    _write(test, TEST.format(**values, listed=listed, imports="from pathlib import Path\n\n" if folder else ""))
    choice = f"{kind}={name}" + (f" plugins=[{plugin}]" if folder else "")
    chosen = choice if REGISTRIES[kind].is_chosen else choice.partition(" ")[2]
    run_it = f"python run.py {chosen}{_RUNS_IN.get(kind, '')}".replace("  ", " ")
    print(f"wrote {plugin} and {test}\ncheck it:  python -m framework check {choice}\nrun it:    {run_it}")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}; choose another --path") from error
