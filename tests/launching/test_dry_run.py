"""`--dry-run` says what a sweep would do, and a sweep gives each reason once."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from rich.console import Console

from framework.app.cli import run as cli
from framework.app.launching.display import dry_run
from framework.app.launching.display.live import SweepTable
from framework.app.launching.gpus import gpus_elsewhere
from framework.app.launching.sweep_file import Cell, Sweep
from framework.config.compose import compose
from framework.records.analysis.report_cells import problems
from framework.records.reasons import listed, once_per_reason

TINY = ("executor=simulated", "model=tiny", "workload=synthetic", "tracker=files")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(dry_run, "failing", [])
    monkeypatch.chdir(tmp_path)


def test_cells_gpus_and_reasons_are_listed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ("scheduler=chunked_prefill,mlfq", "scheduler.num_levels=3,4", "executor=simulated,local", "executor.tp=2")
    assert cli.main(["-m", "--dry-run", *TINY[1:], *axes, "hydra.sweep.dir=s"]) == 0
    printed = capsys.readouterr().out
    assert "8 cells: 2 runs, 6 skipped; up to 2 GPUs per cell, 1 here" in printed
    assert printed.count("unknown key 'scheduler.num_levels'") == 1, "a reason once"
    assert "skipped: 5, 7: needs 2 GPUs, this machine has 1" in printed
    assert not list(tmp_path.iterdir())


def test_what_would_fail_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--dry-run", *TINY, "workload.arrival=poisson"]) == 0
    assert "1 cells: 1 runs; no GPU" in capsys.readouterr().out
    assert cli.main(["-m", "--dry-run", *TINY, "workload.rate_per_s=0,1", "hydra.sweep.dir=s"]) == 1
    assert "fails: 0: workload.rate_per_s=0.0 must be above 0" in capsys.readouterr().out
    assert cli.main(["--dry-rnu", *TINY]) == 2
    assert "--dry-rnu is not an option of this command (did you mean --dry-run?)" in capsys.readouterr().err
    for value in ("true", "false", ""):
        assert cli.main(["-m", f"--dry-run={value}", *TINY]) == 2
        assert capsys.readouterr().err.startswith(f"error: --dry-run={value}: --dry-run takes no value")
    assert not list(tmp_path.iterdir())


def test_policies_of_a_device_are_built_as_a_run_builds_them(capsys: pytest.CaptureFixture[str]) -> None:
    local = ("executor=local", "executor.device=cpu", *TINY[1:])
    for overrides, says in (
        (("scheduler=ltr", "predictor=none"), "scheduler=ltr needs"),
        (("scheduler=mlfq", "scheduler.num_levels=0"), "num_levels=0"),
        (("eviction=tail_lru", "eviction.next_blocks=-1"), "next_blocks=-1"),
    ):
        dry_run.failing.clear()
        assert cli.main(["--dry-run", *local, *overrides]) == int("ltr" not in says)
        printed = capsys.readouterr().out
        assert says in printed.partition("skipped: 0: " if "ltr" in says else "fails: 0: ")[2]


def test_what_a_plugin_raises_is_a_cell_that_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "build_policies", lambda settings: {}["level"])
    assert cli.main(["--dry-run", *TINY]) == 1
    assert "fails: 0: KeyError: 'level'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("launcher", "gpus"),
    [
        ({"gpus_per_node": 1}, "up to 2 GPUs per cell"),
        ({"ray": {"remote": {"num_gpus": 0}}}, "no GPU"),
        ({}, "up to 2 GPUs per cell"),
    ],
)
def test_gpus_of_this_machine_say_nothing_of_another(
    launcher: dict[str, Any], gpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hydra = {"launcher": launcher, "runtime": {"choices": {"hydra/launcher": "slurm_cell"}}}
    cell = compose(["executor=local", "executor.tp=2", *TINY[1:]])
    console = Console(file=io.StringIO(), width=200)
    dry_run.print_outlook([((), cell)], elsewhere=gpus_elsewhere(OmegaConf.create(hydra)), console=console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().replace("\n", "").startswith(f"1 cells: 1 runs; {gpus}")
    assert "here" not in console.file.getvalue()
    hydra["runtime"] = {"choices": {"hydra/launcher": "process"}}
    assert gpus_elsewhere(OmegaConf.create(hydra)) is None


def test_a_reason_is_told_once(tmp_path: Path) -> None:
    assert once_per_reason([("a", "x"), ("b", "y"), ("c", "x")]) == [("x", ["a", "c"]), ("y", ["b"])]
    assert listed([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (12 cells)"
    cells = [Cell(folder=str(i), overrides=[f"seed={i}"], status="skipped", reason="no GPU") for i in range(3)]
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    table = SweepTable(Sweep(folder=tmp_path, cells=cells), console)
    for cell in cells:
        table.on_end(cell)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.partition("(")[2] for line in lines] == ["no GPU)", "as cell 0)", "as cell 0)"]


def test_a_page_tells_a_reason_once(tmp_path: Path) -> None:
    from framework.records.analysis.cells import Cell as Read

    read = [
        Read(folder=tmp_path / str(i), status=status, reason="no GPU", keys={}, metrics={})  # type: ignore[call-arg]
        for i, status in enumerate(("skipped", "failed", "skipped", "failed"))
    ]
    rows = [(row["status"], row["folder"]) for row in problems(tmp_path, read, [], {})]
    assert rows == [("failed", "1"), ("failed", "3"), ("skipped", "0, 2")]
