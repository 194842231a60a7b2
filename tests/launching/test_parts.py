"""The parts of the launchers that need no process."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from framework.app.launching.arguments import expand
from framework.app.launching.axes import values
from framework.app.launching.display.live import SweepTable
from framework.app.launching.ending import objectives
from framework.app.launching.gpus import Leases, gpus_wanted, visible_gpus
from framework.app.launching.order import run_order
from framework.app.launching.sweep_file import Cell, Sweep, read_sweep
from framework.registry import discovery


def test_leases_are_exclusive_and_come_back() -> None:
    leases = Leases(["0", "1", "2"], None)
    assert leases.take(2) == ["0", "1"]
    assert leases.take(2) is None
    assert leases.take(1) == ["2"]
    leases.give_back(["0", "1"])
    assert leases.take(1) == ["0"]
    assert leases.take(0) == [], "a cell without a GPU may run beside"
    assert leases.take(0) is None, "one at a time"


@pytest.mark.parametrize("choice", ["hydra/sweeper=search", "experiment=search_tradeoff"])
def test_a_search_cannot_be_resumed_as_a_grid_is(choice: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a search cannot be resumed"):
        expand(["-m", f"resume={tmp_path}", "seed=1", choice])
    expand(["-m", f"resume={tmp_path}", "experiment=ablation"])


def test_max_parallel_limits_cells_with_and_without_gpus() -> None:
    leases = Leases(["0", "1"], 2)
    assert leases.take(0) == []
    assert leases.take(0) == []
    assert leases.take(1) is None
    leases.give_back([])
    assert leases.take(1) == ["0"]


def test_what_a_cell_needs_by_its_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    discovery.discover()
    assert gpus_wanted({"name": "local", "device": "auto", "tp": 2}, 8) == 2
    assert gpus_wanted({"name": "local", "device": "auto", "tp": 1}, 0) == 0
    assert gpus_wanted({"name": "local", "device": "cuda", "tp": 1}, 0) == 1
    assert gpus_wanted({"name": "local", "device": "cpu", "tp": 2}, 8) == 0
    assert gpus_wanted({"name": "simulated", "device": "auto", "tp": 8}, 8) == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-abc,7")
    assert visible_gpus() == ["4", "GPU-abc", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_the_order_is_random_but_always_the_same() -> None:
    assert run_order(50, "given", 0) == list(range(50))
    assert run_order(50, "random", 0) == run_order(50, "random", 0)
    assert run_order(50, "random", 0) != run_order(50, "random", 1)
    assert sorted(run_order(50, "random", 0)) == list(range(50))
    with pytest.raises(ValueError, match="must be random or given"):
        run_order(1, "sorted", 0)


def test_objectives_come_from_the_record(tmp_path: Path) -> None:
    metrics = {"output_tokens_per_s": 5, "ttft_s/p99": 0.25, "goodput_requests_per_s": None}
    write = (tmp_path / "summary.json").write_text
    write(json.dumps({"status": "completed", "reason": "", "metrics": metrics}))
    assert objectives(tmp_path, ["ttft_s/p99"]) == [0.25]
    assert objectives(tmp_path, ["output_tokens_per_s", "ttft_s/p99"]) == [5.0, 0.25]
    with pytest.raises(ValueError, match=r"no such metric; there are goodput_requests_per_s, output_tok"):
        objectives(tmp_path, ["throughput"])
    with pytest.raises(ValueError, match="it is undefined"):
        objectives(tmp_path, ["goodput_requests_per_s"])
    write(json.dumps({"status": "skipped", "reason": "flash needs a GPU", "metrics": {}}))
    with pytest.raises(ValueError, match="skipped: flash needs a GPU"):
        objectives(tmp_path, ["ttft_s/p99"])


def test_the_words_that_stand_for_overrides() -> None:
    assert expand(["seed=1", "scheduler.limit=3"]) == ["seed=1", "scheduler.limit=3"]
    arguments = ["-m", "scheduler=a,b", "scheduler.limit=3,4", "seed=1", "workload.path='a b'", "executor.x={a:1}"]
    late = ["workload.path=choice('a b')", "executor.x=choice({a:1})"]
    assert expand(arguments) == [*arguments[:4], *late]
    assert expand(["-m", "scheduler.x=null", "scheduler.y="]) == [
        "-m",
        "scheduler.x=choice(${null})",
        "scheduler.y=choice('')",
    ]
    assert values(OverridesParser.create().parse_override("scheduler.x=choice(${null})")) == ["scheduler.x=null"]
    assert expand([*arguments[:4], *late]) == [*arguments[:4], *late], "as sweep.json has them"
    with pytest.raises(ValueError, match="smoke=true runs a small form of experiment=NAME"):
        expand(["smoke=true"])
    with pytest.raises(ValueError, match=r"experiment=nothing does not exist; choose from .*smoke"):
        expand(["smoke=true", "experiment=nothing"])


def test_the_table_shows_what_runs_and_why_something_failed(tmp_path: Path) -> None:
    sweep = Sweep(folder=tmp_path, study="study", arguments=["seed=0,1"])
    sweep.cells = [Cell(folder=str(i), overrides=[f"seed={i}", "model=tiny"]) for i in range(3)]
    stream = io.StringIO()
    table = SweepTable(sweep, Console(file=stream, force_terminal=True, width=100, height=30))
    with table:
        sweep.cells[0].status = "running"
        table.on_start(sweep.cells[0])
        sweep.cells[0].status, sweep.cells[0].reason, sweep.cells[0].wall_s = "failed", "killed by [SIGSEGV]", 1.5
        table.on_end(sweep.cells[0])
    shown = stream.getvalue()
    assert "study: 3 cells, 1 failed, 2 waiting" in shown
    assert "seed=0 (killed by [SIGSEGV])" in shown
    assert "model=tiny" not in shown, "what all cells share tells nothing"
    sweep.end()
    again = read_sweep(tmp_path)
    assert again is not None
    assert again.cells == sweep.cells
    assert again.ended
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep\.json cannot be read"):
        read_sweep(tmp_path)
