"""`resume=DIR` runs what is not completed, in the folders that it had; no sweep writes into another's folder."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from framework.app.launching import resume_key as resume_key_module
from framework.app.launching.arguments import expand
from framework.app.launching.folder import claim
from framework.app.launching.resume import Earlier
from framework.app.launching.resume_key import config_key, resume_key
from framework.app.launching.sweep_file import Sweep, here, read_sweep
from framework.records.analysis.cells import find
from framework.records.record import Record, RecordWriter, Status
from framework.registry.discovery import discover
from tests.launching.conftest import COMMAND, ROOT, Run, cells, summary


def test_only_what_did_not_complete_runs_again(sweep: Run, tmp_path: Path) -> None:
    done = sweep("model.name=fine,failing")
    assert done.returncode == 1
    assert "2 cells: 1 completed, 1 failed" in done.stdout
    first = {path.parent.name: path.read_text() for path in tmp_path.rglob("note.json")}
    (tmp_path / "repaired").touch()

    done = sweep("resume=s")
    assert done.returncode == 0, done.stderr
    assert "2 cells: 2 completed (1 of them earlier)" in done.stdout
    second = {path.parent.name: path.read_text() for path in tmp_path.rglob("note.json")}
    assert [name for name in second if second[name] == first[name]] == ["0"]
    assert [cell["reused"] for cell in cells(tmp_path / "s")] == [True, False]

    done = sweep("resume=s", "hydra.launcher.timeout_s=50", "hydra.launcher.order=given")
    assert done.returncode == 0, done.stderr
    assert "2 cells: 2 completed (2 of them earlier)" in done.stdout, "keys of Hydra's own choose no other cells"

    done = sweep("resume=s", "model.name=fine,failing,loud")
    assert done.returncode == 0, done.stderr
    assert "3 cells: 3 completed (2 of them earlier)" in done.stdout
    assert {path.parent.name for path in tmp_path.rglob("summary.json")} == set("012")
    assert len({summary(tmp_path / "s" / name)["resume_key"] for name in "012"}) == 3


def test_a_cell_with_a_broken_record_runs_again_where_it_was(sweep: Run, tmp_path: Path) -> None:
    assert sweep("model.name=fine", "seed=range(4)").returncode == 0
    (tmp_path / "s" / "0" / "requests.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "s" / "1" / "summary.json").write_text('{"status": "comp')
    (tmp_path / "s" / "2" / "summary.json").unlink()
    done = sweep("resume=s")
    assert done.returncode == 0, done.stderr
    assert "4 cells: 4 completed (1 of them earlier)" in done.stdout
    assert "requests.parquet is damaged" in done.stdout
    assert [summary(tmp_path / "s" / name)["requested"]["seed"] for name in "0123"] == [0, 1, 2, 3]
    assert not (tmp_path / "s" / "4").exists()


def test_what_cannot_be_resumed(sweep: Run, tmp_path: Path) -> None:
    assert "a sweep is resumed, with -m" in refusal([*COMMAND[:2], "resume=."], tmp_path)
    assert "no such folder" in refusal([*COMMAND, "resume=nowhere"], tmp_path)
    assert sweep("model.name=fine").returncode == 0
    before = (tmp_path / "s" / "sweep.json").read_text()
    done = sweep("model.name=fine", "seed=7")
    assert done.returncode == 2
    assert (tmp_path / "s" / "sweep.json").read_text() == before
    assert "s holds the records of another sweep; set hydra.sweep.dir to a new folder, or resume=" in done.stderr


def refusal(command: list[str], folder: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    return done.stderr


def run_alone(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*COMMAND[:-1], "model.name=fine", *overrides]
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)


def test_a_single_run_writes_over_nothing(tmp_path: Path) -> None:
    first = [run_alone(tmp_path, "hydra.run.dir=r", "model.name=slow", f"seed={seed}") for seed in (1, 2)]
    errors = [process.communicate(timeout=100)[1] for process in first]
    assert sorted(process.returncode for process in first) == [0, 2], errors
    assert "r: another run writes there now" in "".join(errors) or "r holds the record of" in "".join(errors)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    (tmp_path / "s" / "0").mkdir(parents=True)
    (tmp_path / "s" / "sweep.json").write_text("{}")
    for folder, message in (("r", "r holds the record of another run"), ("s/0", "s/0 belongs to the sweep in")):
        again = run_alone(tmp_path, f"hydra.run.dir={folder}")
        assert message in again.communicate(timeout=100)[1]
        assert again.returncode == 2
    assert {path: path.read_bytes() for path in before} == before, "Hydra's own files neither"
    assert list((tmp_path / "s" / "0").iterdir()) == []


@pytest.mark.parametrize("place", ["..", "../..", ".", "", "0/../../x", "/ABSOLUTE", "link"])
def test_a_sweep_file_that_leads_elsewhere_is_refused(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    place = place.replace("/ABSOLUTE", str(tmp_path))
    cell = {"folder": place, "overrides": ["seed=1"]}
    (folder / "sweep.json").write_text(json.dumps({"study": "", "launcher": "", "arguments": [], "cells": [cell]}))
    for read in (read_sweep, Earlier):
        with pytest.raises(ValueError, match=r"which is not below .*nothing was written"):
            read(folder)


def test_a_sweep_that_came_from_elsewhere_shows_what_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    sweep = Sweep(folder=folder, arguments=["plugins=['/theirs/it is.py']", "seed=0,1"], made_at=here(folder))
    sweep.write()
    assert "seed=0,1" in expand(["-m", f"resume={folder}"])
    assert capsys.readouterr().err == ""
    folder.rename(tmp_path / "t")
    expand(["-m", f"resume={tmp_path / 't'}"])
    said = capsys.readouterr().err
    assert f"t was made by {sweep.made_at}, and what it says is run as a program is: run.py " in said
    assert "/theirs/it is.py" in said


def test_sweeps_that_start_together_have_folders_of_their_own(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([*COMMAND, "model.name=fine"], cwd=tmp_path, env=env) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(list(tmp_path.glob("multirun/*/*/0/summary.json"))) == 2


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="a sweep runs there now"):
        claim(tmp_path, resume=True)
    os.close(lock)


CONFIG = {"scheduler": {"name": "chunked_prefill"}, "graph": {"name": "lazy"}, "seed": 1, "study": {"question": "?"}}


def test_the_key_is_that_of_configuration_and_code() -> None:
    discover()
    key = resume_key(CONFIG)
    assert resume_key({**CONFIG, "study": {"question": "!"}}) == key, "a better wording changes no result"
    for key_of in (resume_key, config_key):
        elsewhere = {**CONFIG, "tracker": {"name": "wandb", "mode": "offline"}, "plugins": ["/here/mine.py"]}
        assert key_of(elsewhere) == key_of({**CONFIG, "tracker": {"name": "files"}, "plugins": []})
    assert resume_key({**CONFIG, "record": {"timeline": True}}) != key, "a file that was asked for would be missing"
    assert resume_key({**CONFIG, "seed": 2}) != key
    files = resume_key_module._plugin_sources(CONFIG)
    assert len(files.pop("family")[1]) > 10, "which of the families a config names is not known here"
    assert {kind: [Path(file).stem for file in found] for kind, (_, found) in files.items()} == {
        "scheduler": ["chunked_prefill"],
        "graph": ["lazy"],
    }, "no other plugin's"


def test_a_record_stands_for_one_cell(tmp_path: Path) -> None:
    trackers = [{**CONFIG, "tracker": {"name": name}} for name in ("files", "wandb", "trackio")]
    for name, status in zip("012", ("completed", "failed", "failed"), strict=True):
        key = resume_key(CONFIG)
        record = Record(status=status, cell_id="", resume_key=key, requested=CONFIG, metrics={"steps": 1})
        RecordWriter(tmp_path / name).write(record)
    earlier = Earlier(tmp_path)
    assert [earlier.completed(config) for config in trackers] == ["0", None, None]
    assert [earlier.folder_for(config) for config in trackers[1:]] == ["1", "2"]
    assert [cell.folder for cell in earlier.cells.values()] == ["0"]


def test_a_result_of_other_code_is_kept_aside(tmp_path: Path) -> None:
    def write(name: str, status: Status, key: str, config: dict) -> None:
        record = Record(status=status, cell_id="", resume_key=key, requested=config, metrics={"steps": 1})
        RecordWriter(tmp_path / name).write(record)

    write("0", "completed", "old", CONFIG)
    write("1", "failed", "old", {**CONFIG, "seed": 2})
    write("2", "completed", resume_key({**CONFIG, "seed": 3}), {**CONFIG, "seed": 3})
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "summary.json").write_text('{"status": "comp')
    earlier = Earlier(tmp_path)
    assert [earlier.completed({**CONFIG, "seed": seed}) for seed in (1, 2, 3)] == [None, None, "2"]
    assert earlier.folder_for(CONFIG) == "4"
    assert (tmp_path / "0" / "superseded.json").exists()
    assert not (tmp_path / "0" / "summary.json").exists()
    assert [one.folder.name for one in find([tmp_path])[1]] == ["3"], "what was put aside is not damaged"
    assert earlier.folder_for({**CONFIG, "seed": 2}) == "1"
    assert earlier.folder_for({**CONFIG, "seed": 4}) == "5"
