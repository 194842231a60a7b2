"""`hydra/launcher=process`: whatever ends a cell costs that cell only, and is in its record."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.launching.conftest import COMMAND, ROOT, Run, cells, summary

ENDINGS = {
    "fine": ("completed", ""),
    "exit": ("failed", "exit code 7"),
    "segfault": ("failed", "killed by SIGSEGV"),
    "killed": ("failed", "killed by SIGKILL (not by this sweep: when memory runs out the kernel does that)"),
    "hang": ("failed", "killed after hydra.launcher.timeout_s=2"),
    "skipped": ("skipped", ""),
    "crash_late": ("completed", ""),
    "loud": ("completed", ""),
}


def test_each_ending_is_recorded_and_the_sweep_goes_on(sweep: Run, tmp_path: Path) -> None:
    names = ",".join(ENDINGS)
    done = sweep(f"model.name={names}", "hydra.launcher.timeout_s=2", "hydra.launcher.max_parallel=4")
    assert done.returncode == 1, done.stderr
    assert "8 cells: 3 completed, 4 failed, 1 skipped" in done.stdout
    assert "warning: completed, with a reservation: 6; cell 6: after its record was complete" in done.stderr
    records = {name: summary(tmp_path / "s" / str(i)) for i, name in enumerate(ENDINGS)}
    assert {name: (record["status"], record["reason"]) for name, record in records.items()} == ENDINGS
    assert len({record["resume_key"] for record in records.values()}) == len(ENDINGS)
    assert records["exit"]["requested"]["model"]["name"] == "exit"
    assert records["exit"]["environment"]["python"]
    listed = cells(tmp_path / "s")
    assert [cell["status"] for cell in listed] == [status for status, _ in ENDINGS.values()]
    assert listed[6]["reason"] == "after its record was complete: killed by SIGSEGV"
    assert 2 <= listed[4]["wall_s"] < 10
    assert "model.name=segfault (killed by SIGSEGV)" in done.stderr
    assert not alive(int((tmp_path / "s" / "4" / "helper").read_text())), "what a cell started is killed with it"
    assert (tmp_path / "s" / "7" / "cell.log").read_text() == "hello from the cell\nand its errors\n"
    pids = {json.loads(note.read_text())["pid"] for note in (tmp_path / "s").rglob("note.json")}
    assert len(pids) == 4, "a process each"


def test_a_full_disk_is_named_and_the_summary_is_finished(sweep: Run, tmp_path: Path) -> None:
    done = sweep("model.name=fine,fills,loud", "hydra.launcher.order=given")
    assert done.returncode == 1
    assert "3 cells: 1 completed, 2 failed" in done.stdout
    assert done.stderr.count("no record could be written: record in") == 2, done.stderr
    assert f"sweep.json cannot be written: {os.strerror(errno.ENOSPC)}" in done.stderr
    assert "None" not in done.stderr
    (tmp_path / "full").unlink()
    done = sweep("resume=s", "model.name=fine,loud")
    assert done.returncode == 0, done.stderr
    assert "2 completed (1 of them earlier)" in done.stdout


def test_skipped_cells_alone_are_no_success(sweep: Run) -> None:
    done = sweep("model.name=skipped", "seed=0,1")
    assert done.returncode == 1
    assert "2 cells: 2 skipped" in done.stdout
    assert "warning: nothing completed; cell 0 skipped: see cell.log in its folder" in done.stderr
    assert sweep("model.name=skipped,fine", "hydra.sweep.dir=t").returncode == 0, "a grid may hold illegal pairs"


def test_an_interrupt_ends_the_cells_with_their_records(tmp_path: Path) -> None:
    overrides = ["model.name=hang,stubborn,fine", "hydra.launcher.max_parallel=2", "hydra.launcher.order=given"]
    running = start(tmp_path, *overrides)
    helpers = [tmp_path / "s" / str(i) / "helper" for i in (0, 1)]
    wait_for(lambda: all(path.exists() and path.read_text() for path in helpers))
    wait_for(lambda: [cell["status"] for cell in cells(tmp_path / "s")] == ["running", "running", "waiting"])
    running.send_signal(signal.SIGTERM)  # as Ctrl-C, which tests/cli/test_run.py sends
    assert running.wait(60) == 130
    assert [cell["status"] for cell in cells(tmp_path / "s")] == ["interrupted", "interrupted", "waiting"]
    assert summary(tmp_path / "s" / "0")["reason"] == "Ctrl-C"
    assert summary(tmp_path / "s" / "1")["reason"] == "Ctrl-C, killed before it could write its record"
    assert not any(alive(int(path.read_text())) for path in helpers)


def test_a_killed_launcher_takes_its_cells_with_it(tmp_path: Path) -> None:
    running = start(tmp_path, "model.name=hang")
    wait_for(lambda: list(tmp_path.rglob("helper")))
    running.kill()
    running.wait(10)
    wait_for(lambda: (tmp_path / "s" / "0" / "summary.json").exists())
    assert summary(tmp_path / "s" / "0")["status"] == "interrupted"
    (helper,) = tmp_path.rglob("helper")
    os.kill(int(helper.read_text()), signal.SIGKILL)


def test_cells_lease_gpus_for_themselves(sweep: Run, tmp_path: Path) -> None:
    overrides = ["model.name=slow", "seed=range(4)", "hydra.launcher.gpus_per_cell=1"]
    done = sweep(*overrides, CUDA_VISIBLE_DEVICES="3,5")
    assert done.returncode == 0, done.stderr
    notes = [json.loads(path.read_text()) for path in (tmp_path / "s").rglob("note.json")]
    assert len(notes) == 4
    assert {note["gpus"] for note in notes} == {"3", "5"}
    overlaps = [(a["gpus"], b["gpus"]) for a in notes for b in notes if a is not b and a["from"] <= b["from"] < a["to"]]
    assert overlaps, "two at a time"
    assert all(a != b for a, b in overlaps)


def test_a_cell_that_no_gpu_is_left_for_is_skipped(sweep: Run, tmp_path: Path) -> None:
    done = sweep("model.name=fine", "executor.tp=1,4", "executor.device=cuda", CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in cells(tmp_path / "s")] == ["completed", "skipped"]
    assert summary(tmp_path / "s" / "1")["reason"] == "needs 4 GPUs, this machine has 2"


def start(folder: Path, *overrides: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*COMMAND, "hydra.sweep.dir=s", *overrides], cwd=folder, env=env)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not reaped does not."""
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.05)
