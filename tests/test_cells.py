"""Cells from Python and by the console command: the same records as `run.py` writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import framework
from framework import __main__ as command
from framework.interfaces import Queue, Scheduler, StepPlan
from framework.records.record import read_record
from framework.registry import SCHEDULERS

SMALL = ["executor=simulated", "workload=synthetic", "workload.num_requests=4", "model=tiny", "tracker=files"]


def test_run_returns_the_record_that_is_on_disk(tmp_path: Path) -> None:
    record = framework.run([*SMALL, "scheduler=mlfq"], folder=tmp_path / "cell")
    assert record.status == "completed"
    assert record.requested["scheduler"]["name"] == "mlfq"
    assert record.metrics["requests_completed"] == 4
    assert read_record(tmp_path / "cell").metrics == record.metrics


def test_run_prints_only_when_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    framework.run(SMALL, folder=tmp_path / "quiet")
    assert capsys.readouterr().out == ""
    framework.run(SMALL, folder=tmp_path / "shown", show=True)
    assert "output tokens" in capsys.readouterr().out


def test_run_takes_a_plugin_of_this_process(tmp_path: Path) -> None:
    @SCHEDULERS.register("of_a_notebook")
    class OfANotebook(Scheduler):
        """First come, first served."""

        def schedule(self, queue: Queue, plan: StepPlan) -> None:
            for request in (*queue.running, *queue.waiting):
                plan.add(request)

    record = framework.run([*SMALL, "scheduler=of_a_notebook"], folder=tmp_path)
    assert record.status == "completed", record.reason


def test_run_without_a_folder_writes_where_run_py_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    framework.run(SMALL)
    (summary,) = tmp_path.glob("outputs/*/*/summary.json")
    assert read_record(summary.parent).status == "completed"


def test_run_writes_over_no_record(tmp_path: Path) -> None:
    before = framework.run(SMALL, folder=tmp_path)
    with pytest.raises(ValueError, match="holds the record of another run; pass a new folder"):
        framework.run([*SMALL, "seed=7"], folder=tmp_path)
    assert read_record(tmp_path).requested == before.requested


def test_run_refuses_what_does_not_compose(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chunked_prefill"):
        framework.run(["scheduler=mlqf"], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cell_that_fails_says_so_in_its_record(tmp_path: Path) -> None:
    record = framework.run([*SMALL, "engine.num_blocks=1000000000"], folder=tmp_path)
    assert record.status == "failed"
    assert "num_blocks" in record.reason


def test_sweep_returns_a_row_per_cell_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    axes = [*SMALL, "scheduler=mlfq,fair"]
    frame = framework.sweep(axes, folder=tmp_path / "it is here")
    assert sorted(frame["scheduler"]) == ["fair", "mlfq"]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/summary.json")}
    (tmp_path / "it is here/1/summary.json").unlink()
    frame = framework.sweep(axes, folder=tmp_path / "it is here")
    assert list(frame["status"]) == ["completed"] * 2
    assert sum(path.stat().st_mtime_ns == time for path, time in kept.items()) == 1


def test_sweep_gives_the_message_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mlqf"):
        framework.sweep([*SMALL, "scheduler=mlqf,fair"], folder=tmp_path / "sweep")


def test_the_console_command_runs_a_cell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-m", "framework", "run", *SMALL, f"hydra.run.dir={tmp_path / 'cell'}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "cell").status == "completed"


def test_the_console_command_knows_its_version_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--version"])
    assert capsys.readouterr().out == f"ServeLab {framework.__version__}\n"
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n    {name}" in shown for name in ("run", "sweep", "compare", "report", "check", "new", "plugins"))


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, framework; framework.run, framework.SamplingParams; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
