"""A W&B agent drives run.py: its command line is made by wandb's own code, its server is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from framework.config.compose import compose
from framework.records.record import read_record
from tests.tracking.offline_run import read_offline_run

ROOT = Path(__file__).resolve().parents[2]
SWEEP = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text(encoding="utf-8"))


def command(values: dict[str, Any]) -> list[str]:
    """What the agent starts for a cell that the server chose, as `wandb.wandb_agent` puts it together."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args  # takes seconds

    arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros = {"${env}": ["/usr/bin/env"], "${interpreter}": [sys.executable], "${program}": [SWEEP["program"]]}
    macros |= {f"${{{name}}}": made for name, made in arguments.items() if isinstance(made, list)}
    return [word for part in create_sweep_command(list(SWEEP["command"])) for word in macros.get(part, [part])]


def test_every_choice_of_the_server_composes() -> None:
    for name, parameter in SWEEP["parameters"].items():
        for value in parameter.get("values", [parameter.get("min"), parameter.get("max")]):
            words = command({name: value})
            assert words[:2] == ["/usr/bin/env", sys.executable]
            cfg = compose(words[words.index("run.py") + 1 :])
            node: Any = cfg
            for part in name.split("."):
                node = node[part]
            assert value in (node, getattr(node, "name", None))


@pytest.mark.slow
def test_an_agent_starts_a_cell_that_logs_into_its_run(tmp_path: Path) -> None:
    words = command({"scheduler": "prefill_first", "engine.max_num_seqs": 9})
    words += ["executor=simulated", "tracker.figures=false", f"hydra.run.dir={tmp_path / 'cell'}"]
    given = {"WANDB_RUN_ID": "agent123", "WANDB_SWEEP_ID": "sweep456", "WANDB_MODE": "offline"}
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **given}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_record(tmp_path / "cell").requested["engine"]["max_num_seqs"] == 9
    (path,) = (tmp_path / "cell").glob("wandb/offline-run-*/*.wandb")
    run = read_offline_run(path)
    assert run.run_id == "agent123"
    assert run.config["scheduler"] == "prefill_first"
    assert run.summary["output_tokens_per_s"] > 0  # what the sweep maximises
