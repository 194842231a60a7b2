"""`python -m framework wandb-workspace`: put a preset of charts for sweeps into a Weights & Biases project."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add this command to the argument parser."""
    parser = commands.add_parser("wandb-workspace", help="charts for a W&B project", description=__doc__)
    parser.add_argument("--project", default="servelab", help="W&B project; default: servelab")
    parser.add_argument("--entity", default=None, help="user or team; default: that of the login")
    parser.add_argument("--by", default="scheduler,eviction", metavar="KEYS", help="choices to group runs by")
    parser.add_argument("--sweep", default=None, metavar="NAME", help="only the runs of this sweep (W&B group)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the workspace and print its address. Returns 0."""
    from framework.records.packages import need, one_line
    from framework.records.tracking.wandb_login import logged_in

    need("wandb_workspaces", "wandb-workspaces")
    if not logged_in():
        raise ValueError("a workspace lives on W&B's server: run `wandb login` or set WANDB_API_KEY")
    from framework.records.tracking.wandb_workspace import build

    by = [name.strip() for name in options.by.split(",") if name.strip()]
    if not by:
        raise ValueError(f"--by {options.by!r} names no key; such as --by scheduler,eviction")
    try:
        import wandb

        entity = options.entity or wandb.Api().default_entity or ""
        workspace = build(entity=entity, project=options.project, by=by, sweep=options.sweep).save()
    except Exception as error:  # a service's errors are many; all end here in one line
        raise ValueError(f"W&B did not take the workspace: {one_line(error)}") from error
    print(f"workspace: {workspace.url}")
    return 0
