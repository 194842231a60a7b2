"""A Slurm launch submits no cell that an earlier launch has queued, and waits for what cannot come no longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
