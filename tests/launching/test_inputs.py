"""The same key, the same result: whatever a cell reads counts by its content, and an edit in mid-sweep is noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.app.launching import resume_key as keys
from framework.app.launching.inputs import check_inputs, read_inputs
from framework.app.launching.presets import freeze_presets
from framework.app.launching.resume_key import resume_key, what_changed
from framework.registry import discovery
from tests.launching.conftest import ROOT, Run, cells, summary

PLUGIN = """
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS
import helper_of_mine

@SCHEDULERS.register("edited")
class Edited(Scheduler):
    def schedule(self, queue, plan) -> None:
        for request in (*queue.running, *queue.waiting):
            plan.add(request)
"""
FILES = {
    "trace.jsonl": '{"time_s": 0, "prompt_tokens": 8, "output_tokens": 2}\n' * 3,
    "profile.json": "{}",
    "model/config.json": "{}",
    "model/tokenizer.json": "{}",
    "model/model.safetensors": "\0" * 64,
    "tokenizer/tokenizer_config.json": "{}",
    "mine.py": PLUGIN,
    "helper_of_mine.py": "LIMIT = 1\n",
    "framework/engine.py": "SPEED = 1\n",
    "framework/gemm.cpp": "int speed = 1;\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every kind of file that a cell reads, with a stand-in for the framework."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(keys, "_FRAMEWORK", f"{tmp_path}/framework/")
    monkeypatch.setattr(keys, "_imported", {})
    monkeypatch.delitem(sys.modules, "helper_of_mine", raising=False)
    discovery.discover([str(tmp_path / "mine.py")])
    keys.note_imported()
    return tmp_path


def config(folder: Path) -> dict[str, Any]:
    return {
        "scheduler": {"name": "edited"},
        "workload": {"name": "trace", "path": f"{folder}/trace.jsonl"},
        "cost_model": {"name": "profiled", "path": f"{folder}/profile.json"},
        "executor": {"name": "local"},
        "model": {"path": f"{folder}/model", "tokenizer": f"{folder}/tokenizer", "weights": "auto"},
    }


EDITS = {
    "append": lambda data, at: data + b"#",
    "truncate": lambda data, at: data[:at],
    "flip": lambda data, at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
    "empty": lambda data, at: b"",
    "delete": None,
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(FILES)), edit=st.sampled_from(sorted(EDITS)), place=st.floats(0, 1, exclude_max=True)
)
def test_any_edit_of_any_input_is_noticed(folder: Path, name: str, edit: str, place: float) -> None:
    for file, text in FILES.items():
        (folder / file).write_text(text)
    before, inputs = resume_key(config(folder)), read_inputs(config(folder))
    path, data = folder / name, (folder / name).read_bytes()
    if edit == "delete":
        path.unlink()
    else:
        path.write_bytes(EDITS[edit](data, int(place * len(data))))  # at once, so of the same time to the clock's tick
    assert resume_key(config(folder)) != before
    named = f"{folder}/{name}" if name.endswith((".py", ".cpp")) else f"={folder}/{name.partition('/')[0]}"
    assert named in what_changed(config(folder), inputs, read_inputs(config(folder)))
    path.write_bytes(data)
    assert resume_key(config(folder)) == before, "content counts, not the time of it"
    assert what_changed(config(folder), inputs, read_inputs(config(folder))) == ""


def test_the_same_content_elsewhere_is_the_same(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(folder, elsewhere)
    assert resume_key(config(elsewhere)) == resume_key(config(folder))
    first, second = read_inputs(config(folder)), read_inputs(config(elsewhere))
    assert {role: about["sha256"] for role, about in first.items()} == {
        r: about["sha256"] for r, about in second.items()
    }
    assert first["workload.path"]["path"] == f"{folder}/trace.jsonl"
    swapped = config(folder)
    swapped["workload"]["path"], swapped["cost_model"]["path"] = f"{folder}/profile.json", f"{folder}/trace.jsonl"
    assert resume_key(swapped) != resume_key(config(folder)), "but not in another role"


def test_what_is_not_read_does_not_count(folder: Path) -> None:
    discovery.discover()
    simulated = config(folder) | {"executor": {"name": "simulated"}}
    key = resume_key(simulated)
    (folder / "model" / "model.safetensors").write_text("other weights")
    (folder / "tokenizer" / "tokenizer_config.json").write_text("another")
    (folder / "model" / "README.md").write_text("words")
    assert resume_key(simulated) == key
    (folder / "model" / "config.json").write_text('{"layers": 2}')
    assert resume_key(simulated) != key


def test_a_shipped_profile_counts_too() -> None:
    cell = {"executor": {"name": "simulated", "hardware": "h200", "tp": 1}, "model": {"name": "qwen3_8b"}}
    discovery.discover()
    (role,) = read_inputs({**cell, "cost_model": {"name": "profiled", "path": None}})
    assert role == "cost_model/h200-qwen3_8b-bfloat16-tp1.json"


def test_a_value_of_any_name_counts_if_it_is_a_file(folder: Path) -> None:
    (folder / "weights.txt").write_text("1")
    cell = {"scheduler": {"name": "edited", "table": [{"of": f"{folder}/weights.txt"}], "words": "and/or", "top": "/"}}
    assert list(read_inputs(cell)) == ["scheduler.table.0.of"]
    before = resume_key(cell)
    (folder / "weights.txt").write_text("2")
    assert resume_key(cell) != before


def test_a_folder_that_is_too_large_is_not_hashed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framework.app.launching.inputs._MAX_FILES", 3)
    with pytest.raises(ValueError, match="holds more than 3 files"):
        read_inputs({"workload": {"name": "trace", "path": str(folder)}})


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "trace.jsonl").unlink()
    with pytest.raises(ValueError, match=r"workload\.path=.*trace\.jsonl does not exist; paths count from"):
        check_inputs([config(folder)])


def test_resume_runs_what_read_another_trace(sweep: Run, tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text(FILES["trace.jsonl"])
    done = sweep("model.name=fine", "workload=trace", "workload.path=t.jsonl,u.jsonl", "seed=0,1")
    assert done.returncode == 2
    assert "u.jsonl does not exist" in done.stderr
    assert not (tmp_path / "s").exists(), "one message, no cell"
    asked = ("model.name=fine", "workload=trace", "seed=0,1")
    assert sweep(*asked, "workload.path=t.jsonl").returncode == 0
    first = summary(tmp_path / "s" / "0")["resume_key"]
    trace.write_text(FILES["trace.jsonl"].replace("8", "9"))
    done = sweep("resume=s")
    assert "2 cells: 2 completed\n" in done.stdout, done.stdout + done.stderr
    assert "completed by other code or with other input files" in done.stdout
    assert (tmp_path / "s" / "0" / "superseded.json").exists()
    assert first not in {summary(tmp_path / "s" / cell["folder"])["resume_key"] for cell in cells(tmp_path / "s")}
    trace.rename(tmp_path / "moved.jsonl")
    assert "2 completed (2 of them earlier)" in sweep("resume=s", *asked, "workload.path=moved.jsonl").stdout


SELF_EDITING = PLUGIN.replace("import helper_of_mine", "from pathlib import Path").replace(
    "    def schedule",
    "    def __init__(self) -> None:\n        Path(__file__).open('a').write('# edited')\n\n    def schedule",
)


def test_an_edit_while_the_sweep_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SELF_EDITING)
    simulated = ["experiment=smoke", "executor=simulated", "workload.num_requests=2", "hydra.sweep.dir=s"]
    chosen = ["plugins=[mine.py]", "scheduler=edited", "seed=0,1", "hydra.launcher.order=given"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "-m", *simulated, *chosen],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    first, second = (json.loads((tmp_path / "s" / cell / "summary.json").read_text()) for cell in "01")
    assert (first["status"], first["resume_key"]) == ("completed", "")
    assert "mine.py changed while it ran, so that it is not certain what it ran" in first["reason"]
    assert second["status"] == "failed"
    assert "mine.py changed after it was imported; run the cell again (resume=DIR" in second["reason"]
    assert first["environment"]["code"].keys() >= {"framework", "scheduler", "eviction"}
    assert first["effective"]["inputs"] == {}


def test_a_preset_is_read_once_in_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [{scheduler: mine}]\n")
    preset = tmp_path / "scheduler" / "mine.yaml"
    preset.write_text("limit: 1\n")
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            freeze_presets(loader)
            for text in ("limit: 2\n", "limit: 3\n"):
                assert hydra.compose("config").scheduler.limit == 1
                preset.write_text(text)
            assert hydra.compose("config", overrides=["scheduler.limit=7"]).scheduler.limit == 7
            assert hydra.compose("config").scheduler.limit == 1
    finally:
        GlobalHydra.instance().hydra = running
