"""One cell in this process: every ending leaves a record that says how it ended, and the next cell is unharmed."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.interfaces.errors import IncompatibleError
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo


@pytest.fixture
def run_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a cell whose engine is built by the given function; returns its status and record."""

    def run(build: Callable[[Any], Any], *overrides: str, name: str = "cell", group: str = "") -> Any:
        module = types.ModuleType("framework.execution.build")
        module.build_engine = build  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "framework.execution.build", module)
        cell = CellInfo(folder=tmp_path / name, cell_id=name, config={"asked": "for"}, group=group)
        return run_cell(compose(["tracker=files", "workload=synthetic", *overrides]), cell)

    return run


def raising(error: BaseException) -> Callable[[Any], Any]:
    def build(cfg: Any) -> Any:
        raise error

    return build


@pytest.mark.parametrize(("group", "status", "says"), [("a_sweep", "skipped", "skipped"), ("", "failed", "error")])
def test_incompatible_plugins_end_a_run_and_are_skipped_in_a_sweep(
    group: str, status: str, says: str, run_with: Any, tmp_path: Path, capsys: Any
) -> None:
    assert run_with(raising(IncompatibleError("flash needs a GPU")), group=group) == status
    record = read_record(tmp_path / "cell")
    assert (record.status, record.reason) == (status, "flash needs a GPU")
    assert record.requested == {"asked": "for"}
    assert record.traceback == ""
    assert capsys.readouterr().err == f"{says}: flash needs a GPU\n"


def test_an_error_is_recorded_with_its_traceback(run_with: Any, tmp_path: Path, capsys: Any) -> None:
    assert run_with(raising(RuntimeError("boom"))) == "failed"
    record = read_record(tmp_path / "cell")
    assert (record.status, record.reason) == ("failed", "RuntimeError: boom")
    assert "raise error" in record.traceback
    assert "failed: RuntimeError: boom" in capsys.readouterr().err
    assert run_with(raising(ValueError("weights/x.safetensors is missing")), name="second") == "failed"
    assert read_record(tmp_path / "second").reason == "weights/x.safetensors is missing"
    assert capsys.readouterr().err.startswith("error: weights/x.safetensors is missing (traceback in ")


def test_an_interrupt_is_recorded_and_ends_the_sweep(run_with: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_with(raising(KeyboardInterrupt()))
    assert read_record(tmp_path / "cell").status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_folder_that_cannot_be_written_fails_before_the_model_is_loaded(
    run_with: Any, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "cell").write_text("a file where the folder should be")
    assert run_with(raising(AssertionError("must not be built"))) == "failed"
    assert f"{tmp_path / 'cell'} cannot be written" in capsys.readouterr().err


def test_a_disk_without_room_for_the_tables_is_named_in_the_summary(
    run_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("framework.records.record.write_rows", Mock(side_effect=[full, None, None]))
    assert run_with(raising(IncompatibleError("any"))) == "failed"
    summary = json.loads((tmp_path / "cell" / "summary.json").read_text())
    assert (summary["status"], "No space left on device" in summary["reason"]) == ("failed", True)


def test_a_full_disk_is_known_before_the_model_is_loaded(
    run_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=4096))
    assert run_with(raising(AssertionError("must not be built"))) == "failed"
    assert f"the disk of {tmp_path / 'cell'} is full (4096 bytes are free); make room" in capsys.readouterr().err


def test_a_configuration_changed_after_composition_is_checked_again(tmp_path: Path) -> None:
    cfg = compose(["tracker=files", "workload=synthetic"])
    cfg.engine.overlap = 5
    assert run_cell(cfg, CellInfo(folder=tmp_path, cell_id="x", config={})) == "failed"
    assert read_record(tmp_path).reason == "engine.overlap=5: must be 0 or 1; use 1"
