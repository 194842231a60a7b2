"""Sweeps of cells that cost nothing, each in a process of its own as a user's would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "tests" / "launching" / "fake_sweep.py"), "-m"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def sweep(tmp_path: Path) -> Run:
    """Runs a sweep with the given overrides in `tmp_path`, in the folder `s` unless they name another."""

    def run(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        where = [] if any(o.startswith(("resume=", "hydra.sweep.dir=")) for o in overrides) else ["hydra.sweep.dir=s"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        command = [*COMMAND, *where, *overrides]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)

    return run


def cells(folder: Path) -> list[dict[str, Any]]:
    """The lines of `sweep.json`, by folder."""
    return sorted(json.loads((folder / "sweep.json").read_text())["cells"], key=lambda cell: int(cell["folder"]))


def summary(folder: Path) -> dict[str, Any]:
    """A cell's `summary.json`."""
    return json.loads((folder / "summary.json").read_text())
