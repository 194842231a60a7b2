"""`python run.py` from outside: messages, exit codes, and what is left on disk."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from framework.registry import CHOSEN, REGISTRIES
from framework.registry.discovery import discover

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["experiment=smoke", "workload.num_requests=2", "workload.output_tokens_max=16"]
INTERRUPTING = """
import os, signal, time
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS

@SCHEDULERS.register("interrupting")
class Interrupting(Scheduler):
    '''Runs everything, one request at a time, and presses Ctrl-C after the third.'''
    def __init__(self, *, times: int = 1) -> None:
        self.left = times
        self.finished = 0
    def on_finish(self, request) -> None:
        self.finished += 1
    def schedule(self, queue, plan) -> None:
        for request in [*queue.running, *queue.waiting][:1]:
            plan.add(request)
        if self.finished == 3 and self.left:
            self.left -= 1
            os.kill(os.getppid(), signal.SIGINT)  # the launcher, to which a terminal sends it
            time.sleep(0.5)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("summary.json"))]


def test_unknown_key_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run(tmp_path, "scheduler.nonsense=3")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: unknown key 'scheduler.nonsense'; scheduler=chunked_prefill has the keys: name"
    )
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_unknown_choice_lists_the_choices_even_in_a_sweep(tmp_path: Path) -> None:
    done = run(tmp_path, "seed=1", "-m", "scheduler=prefill_first,nonsense")
    assert done.returncode == 2
    assert "scheduler=nonsense does not exist" in done.stderr
    assert "chunked_prefill" in done.stderr
    assert records(tmp_path) == []


def timed_help(folder: Path) -> tuple[str, float]:
    """The help, and how many seconds of CPU it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(folder, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    return timed_help(tmp_path_factory.mktemp("help"))


def test_help_lists_groups_and_their_options(helped: tuple[str, float]) -> None:
    listed = dict(line.split(": ", 1) for line in helped[0].splitlines() if ": " in line)
    discover()
    for kind, registry in CHOSEN.items():
        assert set(registry.names()) <= set(listed[kind].split(", "))
    assert "smoke" in listed["experiment"].split(", ")


def test_help_lists_what_hydra_would(tmp_path: Path, helped: tuple[str, float]) -> None:
    hydras = run(tmp_path, "--help", "hydra.verbose=false").stdout
    assert [line.rstrip() for line in helped[0].splitlines() if line] == [
        line.rstrip() for line in hydras.splitlines() if line and not line.startswith("hydra/")
    ]


def test_help_is_quick(tmp_path: Path, helped: tuple[str, float]) -> None:
    again = (timed_help(tmp_path)[1] for _ in range(4))  # a busy machine counts more seconds for the same work
    assert helped[1] < 2 or any(seconds < 2 for seconds in again)


def test_help_of_an_option_shows_its_parameters(tmp_path: Path) -> None:
    shown = run(tmp_path, "scheduler=mlfq,random", "attention=sdpa", "--help").stdout
    for entry in (REGISTRIES["scheduler"].entry("mlfq"), REGISTRIES["scheduler"].entry("random")):
        assert entry.parameters
        assert all(f"\n  scheduler.{one.name}: {one.type_name}" in shown for one in entry.parameters)
    assert "== attention=sdpa ==" in shown
    done = run(tmp_path, "scheduler=mlfqq", "--help")
    assert done.returncode == 2
    assert done.stderr.startswith("error: scheduler=mlfqq does not exist (did you mean 'mlfq'?); scheduler has the")


def test_a_single_run_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "attention=flashinfer", "executor.device=cpu", "model=tiny", "tracker=files")
    assert done.returncode == 1
    assert done.stderr == "error: attention=flashinfer runs on CUDA GPUs, not on cpu; choose attention=sdpa\n"
    assert [(r["status"], r["reason"]) for r in records(tmp_path)] == [("failed", done.stderr[len("error: ") : -1])]


def test_help_says_what_is_chosen(helped: tuple[str, float]) -> None:
    listed = helped[0]
    assert "engine.max_num_seqs=null engine.max_num_batched_tokens=null" in listed
    assert "null and auto are chosen for the device" in listed


def test_printing_the_configuration_runs_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--cfg", "job", "engine.max_num_seqs=3")
    assert done.returncode == 0
    assert "max_num_seqs: 3" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "hydra.run.dir=file/below")
    assert done.returncode == 2
    assert "file/below" in done.stderr
    assert "set hydra.run.dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_cell_does_not_end_its_sweep(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", *SMOKE, "engine.block_size=16,12,32", "executor.tp=1")
    assert done.returncode == 1, done.stderr
    assert [r["status"] for r in records(tmp_path)] == ["completed", "failed", "completed"]
    assert "engine.block_size=12: must be a power of two" in records(tmp_path)[1]["reason"]
    assert "3 cells: 2 completed, 1 failed" in done.stdout
    assert len({r["cell_id"] for r in records(tmp_path)}) == 3
    assert records(tmp_path)[0]["metrics"]["requests_completed"] == 2


def test_first_ctrl_c_writes_the_record(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(INTERRUPTING)
    arguments = ["plugins=[mine.py]", "scheduler=interrupting", "experiment=smoke", "engine.max_num_seqs=1"]
    done = run(tmp_path, "-m", *arguments, "workload.num_requests=50", "seed=1,2")
    assert done.returncode == 130, done.stderr
    assert len(records(tmp_path)) == 1, "an interrupt ends the sweep"
    record = records(tmp_path)[0]
    assert record["status"] == "interrupted"
    assert 2 <= record["metrics"]["requests_completed"] <= 3


def test_the_first_sigterm_writes_the_record_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(INTERRUPTING.replace("getppid(), signal.SIGINT", "getpid(), signal.SIGTERM"))
    arguments = ["plugins=[mine.py]", "scheduler=interrupting", "experiment=smoke", "engine.max_num_seqs=1"]
    done = run(tmp_path, *arguments, "executor=simulated", "workload.num_requests=50")
    assert done.returncode == 130, done.stderr
    (record,) = records(tmp_path)
    assert (record["status"], record["reason"]) == ("interrupted", "SIGTERM")


def test_second_ctrl_c_kills(tmp_path: Path) -> None:
    code = """
import os, signal
from framework.app.experiment import interruptible
with interruptible():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            pass
    print("still here")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == -2
    assert "still here" not in done.stdout
