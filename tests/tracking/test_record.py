"""The record: written atomically, read back equal, whatever happened to the cell."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.environment import environment
from framework.records.metrics.recorder import OutputRecord
from framework.records.metrics.summary import summarize
from framework.records.record import (
    ERROR,
    OUTPUTS,
    REQUESTS,
    STEPS,
    SUMMARY,
    Record,
    RecordWriter,
    cell_id,
    read_record,
)
from framework.records.tracking.base import CellInfo, Tracker, publish

REQUEST = RequestRecord(
    request_id=3,
    client="k",
    arrival_s=0.5,
    scheduled_s=0.75,
    first_token_s=1.0,
    finish_s=2.0,
    num_prompt_tokens=8,
    num_output_tokens=2,
    num_cached_tokens=4,
    num_preemptions=1,
    finish_reason="stop",
    deadline_s=9.0,
    token_times_s=[1.0, 2.0],
)
REJECTED = RequestRecord(
    request_id=-1,
    client="",
    arrival_s=0.0,
    scheduled_s=None,
    first_token_s=None,
    finish_s=0.0,
    num_prompt_tokens=0,
    num_output_tokens=0,
    num_cached_tokens=0,
    num_preemptions=0,
    finish_reason="rejected",
    error="prompt has 0 tokens",
)
STEP = StepRecord(
    step=0,
    submit_s=0.75,
    finish_s=1.0,
    plan_s=0.01,
    run_s=0.2,
    num_rows=1,
    num_prefill_tokens=8,
    num_decode_tokens=0,
    num_padding_tokens=2,
    graph_key="8x1",
    num_running=1,
    num_waiting=2,
    blocks_used=3,
    blocks_cached=4,
    blocks_free=5,
    evictions=6,
    preemptions=7,
    cache_hit_blocks=8,
    cache_lookup_blocks=9,
)


def full_record() -> Record:
    return Record(
        status="completed",
        cell_id="abc",
        requested={"attention": "auto"},
        effective={"attention": "sdpa"},
        environment={"python": "3"},
        metrics=summarize([REQUEST, REJECTED], [STEP]),
        requests=[REQUEST, REJECTED],
        steps=[STEP],
        outputs=[OutputRecord(request_id=3, prompt="é\u2028", text="a\nb", token_ids=[1, 2], finish_reason="stop")],
    )


def test_read_back_equal(tmp_path: Path) -> None:
    record = full_record()
    RecordWriter(tmp_path / "new" / "folder").write(record)
    assert read_record(tmp_path / "new" / "folder") == record
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [OUTPUTS, REQUESTS, STEPS, SUMMARY]


def test_parquet_columns_for_other_readers(tmp_path: Path) -> None:
    RecordWriter(tmp_path).write(full_record())
    requests, steps = pd.read_parquet(tmp_path / REQUESTS), pd.read_parquet(tmp_path / STEPS)
    assert requests["first_token_s"].tolist()[0] == 1.0
    assert np.isnan(requests["first_token_s"][1])
    assert requests["token_times_s"][0].tolist() == [1.0, 2.0]
    assert steps.loc[0, "graph_key"] == "8x1"
    assert steps.loc[0, "cache_lookup_blocks"] == 9


def test_a_cell_that_never_ran(tmp_path: Path) -> None:
    record = Record(status="failed", reason="ValueError: no weights", cell_id="abc", traceback="Traceback\n  x\n")
    RecordWriter(tmp_path).write(record)
    assert read_record(tmp_path) == record
    assert (tmp_path / ERROR).read_text() == "Traceback\n  x\n"
    assert pd.read_parquet(tmp_path / REQUESTS)["finish_s"].dtype == np.float64
    assert not (tmp_path / OUTPUTS).exists()


def test_a_new_record_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    RecordWriter(tmp_path).write(Record(status="failed", cell_id="a", traceback="t"))
    (tmp_path / "mine.txt").write_text("kept")
    writer = RecordWriter(tmp_path)
    with pytest.raises(ValueError, match=r"summary\.json does not exist: .* holds no finished record"):
        read_record(tmp_path)
    writer.write(full_record())
    assert read_record(tmp_path).traceback == ""
    assert (tmp_path / "mine.txt").exists()


def test_summary_comes_last_and_no_half_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, replaced = RecordWriter(tmp_path), []
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        replaced.append(target.name)
        if target.name == OUTPUTS:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    with pytest.raises(ValueError, match=r"cannot be written: .*No space left"):
        writer.write(full_record())
    assert replaced == [REQUESTS, STEPS, OUTPUTS]
    assert sorted(p.name for p in tmp_path.iterdir()) == [REQUESTS, STEPS]


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    old = os.umask(0o022)
    RecordWriter(tmp_path).write(full_record())
    os.umask(old)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o644}


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"output folder .*file/out cannot be written: Not a directory; set hydra"):
        RecordWriter(tmp_path / "file" / "out")


def test_broken_record_is_named(tmp_path: Path) -> None:
    RecordWriter(tmp_path).write(full_record())
    (tmp_path / SUMMARY).write_text('{"status": "comp')
    with pytest.raises(ValueError, match=f"{tmp_path.name} cannot be read"):
        read_record(tmp_path)


def test_summary_is_strict_json(tmp_path: Path) -> None:
    odd: dict[str, Any] = {"nan": float("nan"), "path": Path("x"), "np": np.int64(3), "tuple": (1, 2.5), "flag": True}
    RecordWriter(tmp_path).write(Record(status="completed", cell_id="a", effective=odd))
    loaded = json.loads((tmp_path / SUMMARY).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert loaded["effective"] == {"nan": "nan", "path": "x", "np": 3, "tuple": [1, 2.5], "flag": True}


def test_cell_id() -> None:
    assert cell_id({"a": 1, "b": {"c": [1], "d": None}}) == cell_id({"b": {"d": None, "c": [1]}, "a": 1})
    different: list[dict[str, Any]] = [
        {"a": 1},
        {"a": "1"},
        {"a": True},
        {"a": 1.5},
        {"a": None},
        {"a": [1]},
        {"a": {"1": 1}},
    ]
    assert len({cell_id(config) for config in different}) == len(different)
    assert len(cell_id({})) == 16


class Broken(Tracker):
    def start(self, cell: CellInfo) -> None: ...

    def finish(self, record: Record) -> None:
        self.error = "CommError: no network"


def test_publish_records_the_error_of_the_tracker(tmp_path: Path) -> None:
    record = full_record()
    publish(record, RecordWriter(tmp_path), Broken())
    assert read_record(tmp_path).tracker_error == "CommError: no network"
    assert read_record(tmp_path).status == "completed"


def test_environment() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"]
    assert found["packages"]["numpy"] == np.__version__
    assert found["cpu_cores"] >= 1
    assert found["device"] == "cpu"
    assert not {"hostname", "node", "user"} & set(found)
