"""The trackio tracker: what its local database holds, read with Trackio's own interface."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from framework.records.record import Record, read_record
from tests.tracking.cells import result, run_cell

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None,
    reason="trackio is not installed: no recent release takes the pinned pillow; pip install trackio elsewhere",
)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    import trackio
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr(utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(trackio, "TRACKIO_DIR", tmp_path / "trackio")
    return SQLiteStorage


def test_a_run_field_by_field(tmp_path: Path, database: Any) -> None:
    assert run_cell(tmp_path / "cell", result(), tracker="trackio", project="proj").error == ""
    (name,) = database.get_runs("proj")
    assert name == "cell-prefill_first"
    config = database.get_run_config("proj", name)
    assert config["scheduler"] == "prefill_first"
    assert config["parameters"]["scheduler"] == {"name": "prefill_first", "victim": "oldest"}
    assert (config["study"], config["_Group"]) == ("schedulers", "sweep")
    rows = database.get_logs("proj", name)
    waiting = [(row["step"], row["time/waiting_max"]) for row in rows if "time/waiting_max" in row]
    assert waiting == [(0, 0), (1, 1), (2, 2)]
    (last,) = [row for row in rows if "metrics/steps" in row]
    assert last["metrics/output_tokens_per_s"] == 12.5
    assert "metrics/ttft_s/p99" not in last
    assert last["tables/requests"]["_type"] == "trackio.table"


def test_a_failure_alerts(tmp_path: Path, database: Any) -> None:
    run_cell(tmp_path / "cell", Record(status="failed", cell_id="id", reason="boom"), tracker="trackio", project="proj")
    (alert,) = database.get_alerts("proj")
    assert (alert["title"], alert["text"]) == ("failed: cell-prefill_first", "boom")
    assert read_record(tmp_path / "cell").tracker_error == ""


def test_what_trackio_only_warns_of_is_in_the_record(
    tmp_path: Path, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trackio.run.format_alert_terminal", lambda *_: 1 / 0)
    run_cell(tmp_path / "cell", Record(status="failed", cell_id="id", reason="boom"), tracker="trackio", project="proj")
    assert "division by zero" in read_record(tmp_path / "cell").tracker_error
