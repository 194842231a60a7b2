"""The wandb tracker: what an offline run holds, read from its file; one run per cell; no error that ends a cell."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb.sdk.lib import wbauth

from framework.records.record import Record, read_record
from framework.records.tracking import wandb_tracker as module
from framework.records.tracking.wandb_content import run_id
from framework.records.tracking.wandb_login import logged_in
from framework.records.tracking.wandb_tracker import WandbTracker
from tests.tracking.cells import cell, result, run_cell, step
from tests.tracking.offline_run import OfflineRun, read_offline_run

ROOT = Path(__file__).resolve().parents[2]


def offline_run(folder: Path) -> OfflineRun:
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    deadline_s = time.monotonic() + 20
    # finish() returns while wandb's own process still writes the last blocks; the exit record is the last one.
    while (run := read_offline_run(path)).exit_code is None and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return run


def test_a_second_try_of_a_cell_leaves_one_run_to_sync(tmp_path: Path) -> None:
    run_cell(tmp_path, result(status="interrupted"), figures=False, artifact=False)
    first = offline_run(tmp_path)
    (earlier,) = tmp_path.glob("wandb/offline-run-*")
    run_cell(tmp_path, result(), figures=False, artifact=False)
    assert offline_run(tmp_path).run_id == first.run_id
    assert (tmp_path / "wandb" / f"superseded-{earlier.name}").is_dir(), "kept, where wandb sync does not look"


def test_offline_run_field_by_field(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = run_cell(tmp_path, result(), project="proj", tags=["t0"], figures=True)
    run = offline_run(tmp_path)
    assert not tracker.error
    assert not read_record(tmp_path).tracker_error
    assert (run.project, run.group, run.name) == ("proj", "sweep", "cell-prefill_first")
    assert (sorted(run.tags), run.job_type, run.exit_code) == (["t0", "t1"], "schedulers", 0)
    assert {k: v for k, v in run.config.items() if k != "_wandb"} == {
        "scheduler": "prefill_first",  # a text, which the UI groups by
        "parameters": {"scheduler": {"name": "prefill_first", "victim": "oldest"}},
        "engine": {"num_blocks": 8},
        "seed": 3,
        "cell_id": "id-prefill_first",
        "choices": {"scheduler": "prefill_first"},
        "overrides": ["scheduler=prefill_first"],
        "effective": {"attention": "sdpa"},
        "environment": {"python": "3"},
    }
    points = [row for row in run.history if "time/s" in row]
    assert [p["time/s"] for p in points] == pytest.approx([0.1, 0.2, 0.3])
    assert points[1]["time/kv_utilization"] == pytest.approx(2 / 12)
    assert [p["time/running_max"] for p in points] == [0, 1, 2]
    assert [p["time/decode_tokens_per_s"] for p in points] == pytest.approx([0, 10, 20])
    axes = {**dict.fromkeys(("time/*", "step/*", "replica/*"), "time/s"), "request/*": "request/arrival_s"}
    assert {name: x_axis for name, x_axis in run.step_metrics.items() if x_axis} == axes
    assert run.hidden == set(axes.values())
    (of_request,) = [row for row in run.history if "request/arrival_s" in row]  # the rejected one has no latency
    assert of_request["request/ttft_s"] == of_request["request/e2e_s"] == 0
    for name in ("latency_cdf", "timeline"):
        path = next(row[f"figures/{name}/path"] for row in run.history if f"figures/{name}/path" in row)
        assert (run.folder / "files" / path).read_bytes()[:4] == b"\x89PNG"
    files = run.artifacts["record-id-prefill_first"]
    names = {"summary.json", "requests.parquet", "steps.parquet", "outputs.jsonl"}
    assert {name: Path(path) for name, path in files.items()} == {name: tmp_path / name for name in names}
    assert run.alerts == []
    assert run.summary["output_tokens_per_s"] == 12.5
    assert run.summary["status"] == "completed"
    assert "ttft_s/p99" not in run.summary
    assert [row["metrics/output_tokens_per_s"] for row in run.history if "metrics/output_tokens_per_s" in row] == [12.5]
    assert not any(name.startswith("metrics/") for name in run.summary), "the summary has them once"
    assert "step/rows" not in run.summary
    requests, outputs = run.table("tables/requests"), run.table("tables/outputs")
    rows = [dict(zip(requests["columns"], row, strict=True)) for row in requests["data"]]
    seen = [(r["request_id"], r["finish_reason"], r["num_prompt_tokens"]) for r in rows]
    assert seen == [(0, "stop", 0), (1, "rejected", 1)]
    assert outputs["data"] == [[0, "p", "é", "stop"]]
    printed = capfd.readouterr()
    (line,) = printed.out.splitlines()
    assert line.startswith("wandb: not logged in, so offline; upload this run with: wandb sync ")
    assert Path(line.rpartition(" ")[2]) == run.folder
    assert printed.err == ""


def test_the_cells_of_a_sweep_inherit_wandb_and_draw_no_figures(tmp_path: Path) -> None:
    threads = threading.active_count()
    for name in WandbTracker.preload:
        importlib.import_module(name)
    assert threading.active_count() == threads, "a fork would lose them"
    run_cell(tmp_path, result(), artifact=False)  # its group is that of a sweep
    assert not [key for row in offline_run(tmp_path).history for key in row if key.startswith("figures/")]


def test_one_run_a_cell_even_after_a_crash(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("crashed", "leftover", "good")]
    run_cell(folders[0], Record(status="failed", cell_id="id", reason="boom"), "crashing")
    folders[1].mkdir()
    # Somebody's run that a crash left open: wandb would hand it out again by default.
    leftover = wandb.init(mode="offline", dir=folders[1], settings=wandb.Settings(silent=True, console="off"))
    run_cell(folders[2], result(), "good")
    leftover.finish()
    crashed, other, good = map(offline_run, folders)
    assert crashed.alerts == [("failed: cell-crashing", "boom", "ERROR")]
    assert good.alerts == []
    assert len({crashed.run_id, other.run_id, good.run_id}) == 3
    assert (crashed.exit_code, good.exit_code) == (1, 0)
    assert (crashed.summary["status"], crashed.summary["reason"]) == ("failed", "boom")
    assert crashed.config["choices"] == {"scheduler": "crashing"}
    assert crashed.config["scheduler"] == "crashing"
    assert good.config["choices"] == {"scheduler": "good"}
    assert "output_tokens_per_s" not in crashed.summary
    assert "choices" not in other.config


def test_a_cell_that_is_tried_again_keeps_its_run(tmp_path: Path) -> None:
    options = {"figures": False, "artifact": False}
    ids = []
    for place, scheduler in (("s/0", "a"), ("s/0", "a"), ("s/0.retry", "a"), ("s/1", "b"), ("t/0", "a")):
        shutil.rmtree(tmp_path / place, ignore_errors=True)
        run_cell(tmp_path / place, result(num_steps=1), scheduler, **options)
        ids.append(offline_run(tmp_path / place).run_id)
    assert ids[0] == ids[1] == ids[2]
    assert len({ids[0], ids[3], ids[4]}) == 3
    alone = dataclasses.replace(cell(tmp_path), group="")
    assert run_id(alone) is None  # the same command twice is two runs


def test_the_agent_of_a_wandb_sweep_keeps_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    calls = online(monkeypatch, run)
    WandbTracker().start(cell(tmp_path))
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    WandbTracker().start(cell(tmp_path))
    assert [call["id"] for call in calls] == [run_id(cell(tmp_path)), None]


def test_a_long_run_is_condensed(tmp_path: Path) -> None:
    run_cell(tmp_path, result(num_steps=1001))
    points = [row for row in offline_run(tmp_path).history if "time/s" in row]
    assert len(points) == 200
    assert np.diff([p["time/s"] for p in points]) == pytest.approx(100.1 / 200)
    assert sum(p["time/steps"] for p in points) == 1001
    assert sum(p["time/evictions"] for p in points) == 1000 * 1001 / 2
    assert sum(p["step/rows"] * p["time/steps"] for p in points) == pytest.approx(1000 * 1001 / 2)
    assert max(p["time/running_max"] for p in points) == 1000


def test_an_error_of_wandb_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: Any) -> None:
        raise wandb.errors.CommError("no\nroute")

    monkeypatch.setattr(wandb, "init", broken)
    run_cell(tmp_path, result())
    record = read_record(tmp_path)
    assert (record.status, record.tracker_error) == ("completed", "CommError: no route")
    assert capfd.readouterr().err.startswith("warning: wandb: CommError: no route")


class FakeRun:
    url = "https://wandb.example/run"
    dir = "/nowhere/files"

    def __init__(self, fail: str = "") -> None:
        self.logged: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.fail = fail

    def define_metric(self, *_: Any, **__: Any) -> None: ...

    def log_artifact(self, *_: Any) -> None: ...

    def alert(self, **_: Any) -> None: ...

    def log(self, row: dict[str, Any]) -> None:
        if self.fail == "log":
            raise RuntimeError("log failed")
        self.logged.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code
        if self.fail == "finish":
            raise TimeoutError("finish took too long")


def online(monkeypatch: pytest.MonkeyPatch, run: FakeRun) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)

    def init(**arguments: Any) -> FakeRun:
        calls.append(arguments)
        return run

    monkeypatch.setattr(wandb, "init", init)
    return calls


def test_online_sends_a_point_every_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    calls, now_s = online(monkeypatch, run), [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])
    tracker = WandbTracker()
    tracker.start(cell(tmp_path))
    assert calls[0]["mode"] == "online"
    assert calls[0]["reinit"] == "create_new"
    for i in range(10):
        now_s[0] += 0.5
        tracker.on_step(step(i))
    assert [row["time/steps"] for row in run.logged] == [4, 4]
    tracker.finish(result("interrupted"))
    assert [row.get("time/steps") for row in run.logged] == [4, 4, 2, None, None]  # then requests and tables
    assert run.exit_code == 1
    assert run.summary["status"] == "interrupted"
    assert len(calls) == 1


@pytest.mark.parametrize(("fail", "message"), [("log", "log failed"), ("finish", "took too long")])
def test_online_errors_are_recorded_and_the_run_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str, message: str
) -> None:
    run = FakeRun(fail)
    online(monkeypatch, run)
    tracker = run_cell(tmp_path, result())
    assert message in tracker.error
    assert message in read_record(tmp_path).tracker_error
    assert run.exit_code == 0


def test_online_without_login_never_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("asked wandb"))
    assert "wandb login" in run_cell(tmp_path, result(), mode="online").error


def test_disabled_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("asked wandb"))
    assert not run_cell(tmp_path, result(), mode="disabled").error
    assert not (tmp_path / "wandb").exists()


def test_auto_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WandbTracker().mode == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert WandbTracker().mode == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert WandbTracker().mode == "disabled"
    assert WandbTracker(mode="offline").mode == "offline"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("machine api.wandb.ai login user password KEY\n", ""),
        ("machine api.wandb.ai login user password KEY\n", "https://wandb.corp:8080"),
        ("machine wandb.corp:8080 login user password KEY\n", "https://wandb.corp:8080"),
        ("machine elsewhere login user password KEY\n", ""),
        ("nonsense\n", ""),
        (None, ""),
    ],
)
def test_logged_in_agrees_with_wandb(text: str | None, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789" * 4
    if text is not None:
        Path(os.environ["NETRC"]).write_text(text.replace("KEY", key))
    if url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
    assert logged_in() == (wbauth.read_netrc_auth(host=url or "https://api.wandb.ai") is not None)


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from framework.records.record import Record, RecordWriter\n"
        "from framework.records.tracking.base import CellInfo, publish\n"
        "from framework.records.tracking.wandb_tracker import WandbTracker\n"
        "folder = Path(sys.argv[1]); tracker = WandbTracker()\n"
        "tracker.start(CellInfo(folder=folder, cell_id='x', config={}))\n"
        "publish(Record(status='completed', cell_id='x'), RecordWriter(folder), tracker)\n"
        "assert not tracker.error, tracker.error\n"
    )
    marker = {**os.environ, "LEFT_BEHIND_MARKER": str(tmp_path)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=marker, timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert read_offline_run(path).exit_code == 0  # complete, with nobody left to write the rest
    environs = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environs.append(path.read_bytes())
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    assert not any(str(tmp_path).encode() in environ for environ in environs)
