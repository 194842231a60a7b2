"""`hydra/launcher=in_process`: weights stay, everything else of an engine goes."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from framework.app.cli.run import main
from framework.app.launching import in_process
from framework.execution.rank.reuse import load_once, reusing_weights
from framework.records.record import read_record


def test_only_the_last_weights_are_kept_and_only_inside() -> None:
    loads: list[str] = []

    def get(key: str) -> tuple[object, bool]:
        def load() -> str:
            loads.append(key)
            return key

        return load_once({"model": key}, load)

    assert [get("a"), get("a")] == [("a", False), ("a", False)]
    with reusing_weights():
        assert [get("a"), get("a"), get("b"), get("a")] == [("a", False), ("a", True), ("b", False), ("a", False)]
        with pytest.raises(ZeroDivisionError):
            load_once({"model": "c"}, lambda: 1 / 0)
        assert get("a") == ("a", False), "freed before the next one was loaded"
    assert get("a") == ("a", False)
    assert loads == ["a", "a", "a", "b", "a", "a", "a"]


def test_a_log_that_cannot_be_opened_is_no_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(in_process, "open", _full, raising=False)
    overrides = ["executor=simulated", "model=tiny", "workload=synthetic", "tracker=files", "seed=0,1"]
    assert main(["-m", *overrides, "hydra/launcher=in_process", f"hydra.sweep.dir={tmp_path}"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    (record,) = [read_record(path.parent) for path in tmp_path.glob("*/summary.json")]
    assert (record.status, record.reason) == ("failed", f"OSError: {NO_ROOM}")


NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


def _full(*given: object, **more: object) -> None:
    raise NO_ROOM


def test_cells_share_weights_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    overrides = ["experiment=smoke", "workload.num_requests=2", "record.outputs=true", "engine.num_blocks=64"]
    axes = ["model.seed=0,1", "engine.overlap=0,1", "hydra.launcher.order=given"]
    code = main(["-m", *overrides, *axes, "hydra/launcher=in_process", f"hydra.sweep.dir={tmp_path}"])
    assert code == 0
    records = [read_record(tmp_path / str(i)) for i in range(4)]
    assert [record.effective["weights_reused"] for record in records] == [False, True, False, True]
    tokens = [[output.token_ids for output in record.outputs or []] for record in records]
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3]
    assert [record.metrics["prefix_cache_hit_rate"] for record in records] == [0, 0, 0, 0], "an empty cache each"
    printed = capsys.readouterr()
    assert "TTFT" in (tmp_path / "0" / "cell.log").read_text()
    assert "TTFT" not in printed.out + printed.err, "a line per cell, and no tables"
    assert [line.partition(" ")[0] for line in printed.err.splitlines() if line.startswith("[")] == [
        f"[{number}/4]" for number in range(1, 5)
    ]
