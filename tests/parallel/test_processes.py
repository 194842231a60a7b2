"""Ranks as processes of the command line: Ctrl-C, rank 0 killed, and torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.records.tracking.base import CellInfo

ROOT = Path(__file__).parents[2]
CELL = [
    "executor.tp=2",
    "executor.device=cpu",
    "model=tiny",
    "workload=synthetic",
    "workload.num_requests=3",
    "tracker=files",
    "record.outputs=true",
]
LONG = ["workload.output_tokens_min=4000", "workload.output_tokens_max=4000", "engine.num_blocks=800"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def workers_of(parent: int) -> list[int]:
    """Its children that are workers and have read torch's libraries."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                is_worker = b"framework.execution.parallel.worker" in (entry / "cmdline").read_bytes()
                if is_worker and "libtorch" in (entry / "maps").read_text():
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether the process lives. A zombie, which cannot be reaped here, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    until_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until_s, what
        time.sleep(0.05)


def test_ctrl_c_and_the_death_of_rank_0(tmp_path: Path) -> None:
    """Two engines run at the same time; neither end touches the other."""
    shared_memory = set(os.listdir("/dev/shm"))
    cells = [
        subprocess.Popen(
            [sys.executable, "run.py", *CELL, *LONG, f"hydra.run.dir={tmp_path / name}"],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("interrupted", "killed")
    ]
    try:
        wait_until(lambda: all(workers_of(cell.pid) for cell in cells), 60, "no workers")
        time.sleep(1.5)
        workers = [workers_of(cell.pid)[0] for cell in cells]
        cells[1].kill()
        wait_until(lambda: not is_alive(workers[1]), 10, "the worker outlives rank 0")
        assert is_alive(workers[0])
        cells[0].send_signal(signal.SIGINT)
        assert cells[0].wait(timeout=10) == 130
        assert not is_alive(workers[0])
    finally:
        for cell in cells:
            cell.kill()
            cell.wait()
    summary = json.loads((tmp_path / "interrupted" / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("interrupted", "Ctrl-C")
    assert set(os.listdir("/dev/shm")) == shared_memory


def test_torchrun_runs_what_the_engine_starts_itself(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "run.py"]
    arguments = [*torchrun, *CELL, f"hydra.run.dir={tmp_path / 'two'}"]
    done = subprocess.run(arguments, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    one = CellInfo(folder=tmp_path / "one", cell_id="one", config={})
    assert run_cell(compose([*CELL, "executor.tp=1"]), one) == "completed"
    assert outputs(tmp_path / "two") == outputs(tmp_path / "one")
    effective = json.loads((tmp_path / "two" / "summary.json").read_text())["effective"]
    assert effective["plan_transport"] == "process_group"
    assert [rank["device"] for rank in effective["ranks"]] == ["cpu"]


def outputs(folder: Path) -> list[tuple[int, list[int]]]:
    """Request ids and the tokens that they got."""
    lines = map(json.loads, (folder / "outputs.jsonl").read_text().splitlines())
    return sorted((line["request_id"], line["token_ids"]) for line in lines)
