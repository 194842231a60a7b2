"""A rank that dies, raises or stalls ends the cell in time, with its traceback, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework.app.experiment import run_cell
from framework.app.llm import LLM
from framework.config.compose import compose
from framework.interfaces.errors import RankError
from framework.interfaces.sampling_params import SamplingParams
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo

FAILING = Path(__file__).with_name("failing.py")
CELL = [
    "model=tiny",
    "workload=synthetic",
    "workload.num_requests=4",
    "workload.prompt_tokens_max=8",
    "workload.prompt_tokens_min=8",
    "workload.output_tokens_min=1000",
    "workload.output_tokens_max=1000",
    "engine.max_model_len=2048",
    "engine.max_num_seqs=4",
    "engine.num_blocks=600",
    "executor.tp=2",
    "executor.device=cpu",
    "executor.heartbeat_s=1.5",
    "tracker=files",
]
LIMIT_S = 10.0


def children() -> set[int]:
    """Live workers that this process started, zombies excluded: libraries have helpers of their own."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                is_worker = b"framework.execution.parallel.worker" in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == os.getpid() and state != "Z" and is_worker:
                found.add(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    before = children(), set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    yield
    assert children() == before[0]
    assert set(os.listdir("/dev/shm")) == before[1]
    threads = {thread.name for thread in threading.enumerate()}
    assert not {name for name in threads if name.startswith("servelab")}


def cell(folder: Path, *overrides: str) -> tuple[str, str, str]:
    """Status, reason and traceback of a cell with the failing sampler, from a file that is new each time."""
    plugin = shutil.copy(FAILING, folder)
    cfg = compose([*CELL, f"plugins=[{plugin}]", "sampler=failing", *overrides])
    status = run_cell(cfg, CellInfo(folder=folder / "cell", cell_id="cell", config={}))
    return status, read_record(folder / "cell").reason, (folder / "cell" / "error.txt").read_text()


@pytest.mark.parametrize(
    ("how", "says", "trace"),
    [
        ("raise", "rank 1 .* raised PluginError: sampler Failing .*ArithmeticError: rank 1 went wrong", "failing.py"),
        ("stall", r"rank 1 .* stalled: no progress for 1.5 s \(executor.heartbeat_s\)", "_stuck_here"),
    ],
)
def test_a_worker_that_goes_wrong(tmp_path: Path, how: str, says: str, trace: str) -> None:
    status, reason, error = cell(tmp_path, f"sampler.how={how}")
    assert status == "failed"
    assert re.search(says, reason), reason
    assert "traceback of rank 1" in error
    assert trace in error


def test_rank_0_that_stalls(tmp_path: Path) -> None:
    status, reason, error = cell(tmp_path, "sampler.how=stall", "sampler.where=rank0")
    assert status == "failed"
    assert "rank 0 (this process) stalled" in reason
    assert "_stuck_here" in error


@pytest.mark.parametrize(
    ("number", "says"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "did not answer for 1.5 s")],
)
def test_a_worker_that_is_gone(number: signal.Signals, says: str) -> None:
    with LLM("tiny", tp=2, heartbeat_s=1.5, max_model_len=2048, num_blocks=400, max_num_seqs=4) as llm:
        (worker,) = children()
        hit_s = [0.0]

        def hit() -> None:
            hit_s[0] = time.monotonic()
            os.kill(worker, number)

        threading.Timer(0.3, hit).start()
        with pytest.raises(RankError, match=rf"rank 1 \(process {worker} on .*\) {says}"):
            llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2000, ignore_eos=True))
        assert time.monotonic() - hit_s[0] < LIMIT_S
