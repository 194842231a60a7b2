"""The same sweep through Ray, and through submitit as Slurm would run it, with real, simulated cells."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching.conftest import ROOT, cells, summary

SIMULATED = ["experiment=smoke", "executor=simulated", "workload.num_requests=2", "hydra.sweep.dir=s"]
PACKAGES = {"slurm_rehearsal": "submitit", "ray_cell": "ray"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("launcher", PACKAGES)
def test_a_sweep_on_another_launcher(launcher: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(PACKAGES[launcher]) is None:
        pytest.skip(f"needs {PACKAGES[launcher]}: pip install '.[sweep]'")
    # 12 is no power of two, so that one cell fails; plugins come from a file, which the worker has to find as well.
    (tmp_path / "mine.py").write_text(PLUGIN)
    arguments = ["plugins=[mine.py]", "scheduler=mine", "engine.block_size=16,12", f"hydra/launcher={launcher}"]
    done = run(tmp_path, "-m", *SIMULATED, *arguments)
    assert done.returncode == 1, done.stderr
    assert "2 cells: 1 completed, 1 failed" in done.stdout
    listed = cells(tmp_path / "s")
    assert [cell["status"] for cell in listed] == ["completed", "failed"]
    assert "engine.block_size=12: must be a power of two" in listed[1]["reason"]
    record = summary(tmp_path / "s" / "0")
    assert record["metrics"]["requests_completed"] == 2
    assert record["requested"]["scheduler"]["name"] == "mine"
    if launcher == "slurm_rehearsal":
        done = run(tmp_path, "-m", "resume=s", *SIMULATED[:3], *arguments[:2], "engine.block_size=16,32")
        assert done.returncode == 0, done.stderr
        # Resumed here what another machine began; the cell that failed there was not asked for again.
        assert "3 cells: 2 completed, 1 failed (2 of them earlier)" in done.stdout


PLUGIN = '''
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS

@SCHEDULERS.register("mine")
class Mine(Scheduler):
    """All there is."""
    def schedule(self, queue, plan) -> None:
        for request in (*queue.running, *queue.waiting):
            plan.add(request)
'''
