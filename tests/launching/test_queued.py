"""A Slurm launch submits no cell that an earlier launch has queued, and waits for what cannot come no longer."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")

from framework.app.launching.clusters import slurm


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command of that name, which prints what is written to the file."""
    answer, program = tmp_path / "answer", tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncat "{answer}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    answer.write_text("")
    return answer


def folders(path: Path, *names: str) -> Path:
    for name in names:
        (path / "sweep" / name).mkdir(parents=True)
    return path / "sweep"


@pytest.mark.parametrize("line", ["12 12", "15 12"])  # of an array, the second number is that of all
def test_jobs_of_an_earlier_launch_are_named(line: str, squeue: Path, tmp_path: Path) -> None:
    squeue.write_text(f"7 7\n{line}\n")
    with pytest.raises(ValueError, match=r"scancel 12$"):
        slurm.refuse_queued(folders(tmp_path, "12_0", "12_1", "9_0", "notes"))


def test_jobs_of_others_and_ended_ones_do_not_matter(squeue: Path, tmp_path: Path) -> None:
    squeue.write_text("7 7\n123 123\n")
    slurm.refuse_queued(folders(tmp_path, "12_0", "9_0"))
    slurm.refuse_queued(tmp_path / "a first launch")


def test_a_slurm_that_does_not_answer_is_an_error(squeue: Path, tmp_path: Path) -> None:
    squeue.unlink()
    with pytest.raises(ValueError, match=r"squeue: .*answer"):
        slurm.refuse_queued(folders(tmp_path, "12_0"))


def test_waits_while_jobs_run_and_a_little_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "POLL_S", 0.001)
    monkeypatch.setattr(slurm, "FILE_LIMIT_S", 0.01)
    results = [tmp_path / "a", tmp_path / "b"]
    results[0].touch()
    asked = []

    def busy() -> bool:
        asked.append(1)
        return len(asked) < 5

    slurm.wait_for(results, busy)
    assert len(asked) > 5
    results[1].touch()
    slurm.wait_for(results, lambda: pytest.fail("all results are there"))


def test_a_squeue_that_fails_now_and_then_does_not_end_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "POLL_S", 0.0)
    monkeypatch.setattr(slurm, "FILE_LIMIT_S", 0.0)
    asked = []

    def busy() -> bool:
        asked.append(1)
        if len(asked) % slurm.SILENT_POLLS and len(asked) < 50:
            raise ValueError("squeue: timed out")
        return len(asked) < 50

    slurm.wait_for([tmp_path / "a"], busy)
    assert len(asked) > 50
    asked.clear()

    def silent() -> bool:
        asked.append(1)
        raise ValueError("squeue: timed out")

    with pytest.raises(ValueError, match="timed out"):
        slurm.wait_for([tmp_path / "a"], silent)
    assert len(asked) == slurm.SILENT_POLLS


def test_the_next_round_of_a_search_does_not_wait_for_the_last(
    squeue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs whose results are there may still be ending."""
    submitted = []

    class Executor:
        def __init__(self, **_: Any) -> None: ...
        def update_parameters(self, **_: Any) -> None: ...

        def map_array(self, *_: Any) -> list[Any]:
            array = str(12 + len(submitted))
            submitted.append(array)
            squeue.write_text("".join(f"{number} {number}\n" for number in submitted))
            (result := folders(tmp_path, f"{array}_0") / f"{array}_0" / "result").touch()
            return [SimpleNamespace(job_id=f"{array}_0", paths=SimpleNamespace(result_pickle=result), result=str)]

    monkeypatch.setattr("submitit.AutoExecutor", Executor)
    monkeypatch.setattr(slurm, "configure_log", lambda *_: None)

    def launcher() -> slurm.SlurmLauncher:
        made = slurm.SlurmLauncher(submitit_folder=tmp_path / "sweep" / "%j", max_num_timeout=0)
        made.config = OmegaConf.create(
            {"hydra": {"hydra_logging": None, "verbose": False, "sweep": {"dir": str(tmp_path)}}}
        )
        return made

    first = launcher()
    for _ in range(3):
        first.launch([["seed=1"]], 0)
    with pytest.raises(ValueError, match=r"scancel 12 13 14$"):
        launcher().launch([["seed=1"]], 0)
    assert submitted == ["12", "13", "14"]
