"""A sweep whose folder is removed while it runs: that is said, and is not called a mistake of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_run import run

REMOVING = """
import shutil
from pathlib import Path
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS

@SCHEDULERS.register("removing")
class Removing(Scheduler):
    '''Runs everything; at the end of the first request it removes a folder, as a person who tidies up would.'''
    def __init__(self, *, removes: str) -> None:
        self.removes = removes.split("+")  # not as a path: those of inputs have to exist before the sweep begins
    def on_finish(self, request) -> None:
        shutil.rmtree(Path(*self.removes), ignore_errors=True)
    def schedule(self, queue, plan) -> None:
        for request in [*queue.running, *queue.waiting]:
            plan.add(request)
"""


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("sweep", "sweep was removed while the sweep ran there, and the records in it"),
        ("sweep+0", "warning: 1 records were removed while the sweep ran, the first in "),
    ],
)
def test_it_is_said(tmp_path: Path, removed: str, message: str) -> None:
    (tmp_path / "removing.py").write_text(REMOVING)
    arguments = ["model=tiny", "executor=simulated", "workload.num_requests=3", "workload=synthetic", "tracker=files"]
    arguments += ["hydra.sweep.dir=sweep", "hydra.launcher.max_parallel=1", f"plugins=[{tmp_path / 'removing.py'}]"]
    axis = f"scheduler.removes=nothing,{removed}" if "+" in removed else f"scheduler.removes={removed}"
    done = run(tmp_path, "-m", "scheduler=removing", axis, "hydra.launcher.order=given", *arguments)
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert "set hydra.run.dir" not in done.stderr
