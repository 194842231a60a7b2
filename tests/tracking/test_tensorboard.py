"""The tensorboard tracker: event files read back with TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from framework.records.record import Record, read_record
from framework.registry import TRACKERS
from tests.tracking.cells import result, run_cell

EventAccumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
).EventAccumulator


def test_series_metrics_and_hyperparameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it takes longer than most simulated cells
    assert run_cell(tmp_path, result(), tracker="tensorboard").error == ""
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    waiting = events.Scalars("time/waiting_max")
    assert [(event.step, event.value) for event in waiting] == [(100_000, 0), (200_000, 1), (300_000, 2)]
    assert [event.wall_time for event in waiting] == pytest.approx([0.1, 0.2, 0.3])
    assert [event.value for event in events.Scalars("metrics/output_tokens_per_s")] == [12.5]
    assert "metrics/ttft_s/p99" not in events.Tags()["scalars"]
    (session,) = [
        event.summary.value[0].metadata.plugin_data.content
        for path in (tmp_path / "tensorboard").iterdir()
        for event in EventAccumulator(str(path))._generator.Load()
        if event.HasField("summary") and event.summary.value[0].tag == "_hparams_/session_start_info"
    ]
    for text in (b"scheduler", b"prefill_first", b"parameters.scheduler.victim", b"engine.num_blocks"):
        assert text in session
    assert events.Tensors("status/text_summary")[0].tensor_proto.string_val[0] == b"completed"


def test_a_failed_cell_has_its_reason(tmp_path: Path) -> None:
    run_cell(tmp_path, Record(status="failed", cell_id="id", reason="boom"), tracker="tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tensors("status/text_summary")[0].tensor_proto.string_val[0] == b"failed: boom"


def test_an_error_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    assert run_cell(tmp_path, result(), tracker="tensorboard").error
    assert read_record(tmp_path).status == "completed"
    assert read_record(tmp_path).tracker_error
    assert capfd.readouterr().err.startswith("warning: tensorboard: ")


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_missing_package_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=f"pip install {name}"):
        TRACKERS.build({"name": name})
