"""Whole simulated cells: as the command line runs them, without torch, the same record every time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.models.loading.byte_tokenizer import byte_tokenizer
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo
from framework.workloads.chat import PROMPTS

SIMULATED = ["executor=simulated", "model=qwen3_0_6b", "tracker=files", "workload=synthetic", "engine.max_num_seqs=16"]
HOST_TIMES = ("plan_s",)


def run(folder: Path, *overrides: str) -> Any:
    status = run_cell(compose([*SIMULATED, *overrides]), CellInfo(folder=folder, cell_id="x", config={}))
    record = read_record(folder)
    assert record.status == status
    return record


def without_host_times(folder: Path) -> dict[str, Any]:
    """Everything that a record says of the simulated run, host times excepted."""
    summary = json.loads((folder / "summary.json").read_text())
    summary.pop("environment")
    metrics = summary["metrics"]
    for name in list(metrics):
        if name.startswith((*HOST_TIMES, "startup_s", "peak_memory_gib")):
            del metrics[name]
    record = read_record(folder)
    for step in record.steps:
        step.plan_s = 0.0
    return {"summary": summary, "requests": record.requests, "steps": record.steps}


@pytest.mark.parametrize("cost_model", ["roofline", "profiled"])
def test_the_same_configuration_gives_the_same_record(tmp_path: Path, cost_model: str) -> None:
    overrides = (
        "workload.arrival=poisson", "workload.rate_per_s=200", "graph=full", "engine.num_blocks=300",
        "engine.max_model_len=512", "scheduler=random", f"cost_model={cost_model}",
    )  # fmt: skip
    for name in ("a", "b"):
        assert run(tmp_path / name, *overrides).metrics["requests_completed"] == 32
    first, second = (without_host_times(tmp_path / name) for name in ("a", "b"))
    assert first == second
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {"summary.json", "requests.parquet", "steps.parquet"}
    assert (tmp_path / "a" / "requests.parquet").read_bytes() == (tmp_path / "b" / "requests.parquet").read_bytes()


def test_what_is_not_simulated_is_said(tmp_path: Path) -> None:
    record = run(tmp_path, "sampler=greedy", "attention=flash", "workload.num_requests=2")
    assert set(record.effective["not_simulated"]) == {"sampler", "attention"}
    assert "greedy" in record.effective["not_simulated"]["sampler"]
    assert record.effective["device"] == "simulated NVIDIA H200"
    assert record.metrics["memory_bandwidth_utilization"] > 0


def test_a_request_that_never_fits_is_rejected_by_name_and_the_rest_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(
        tmp_path, "engine.max_model_len=200", "workload.prompt_tokens_max=400", "workload.output_tokens_max=20"
    )
    rejected = [request for request in record.requests if request.finish_reason == "rejected"]
    assert 0 < len(rejected) < 32
    assert all("max_model_len=200" in request.error for request in rejected)
    assert record.metrics["requests_completed"] == 32 - len(rejected)
    assert record.status == "completed"
    assert record.reason == f"{len(rejected)} of 32 requests were rejected, the first because: {rejected[0].error}"
    assert f"warning: {record.reason}" in capsys.readouterr().err


def test_a_cell_that_rejects_every_request_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(tmp_path, "engine.max_model_len=10", "workload.prompt_tokens_min=20", "workload.num_requests=3")
    assert (record.status, record.metrics["requests_rejected"]) == ("failed", 3)
    says = r"served nothing: all 3 requests were rejected, the first because: .*max_model_len=10"
    assert re.match(says, record.reason)
    assert f"failed: {record.reason}" in capsys.readouterr().err


def test_the_headline_command_is_simulated_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The chat prompts in the tokens of the model's own tokenizer; there are no words to print."""
    cfg = compose(["scheduler=prefill_first", "attention=flash", "model=tiny", "executor=simulated", "tracker=files"])
    assert run_cell(cfg, CellInfo(folder=tmp_path, cell_id="x", config={})) == "completed"
    record = read_record(tmp_path)
    tokenizer = byte_tokenizer()
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    assert [one.num_prompt_tokens for one in sorted(record.requests, key=lambda one: one.request_id)] == [
        len(tokenizer.apply_chat_template(one)) for one in messages
    ]
    assert record.effective["block_size"] == 256
    assert record.outputs is None
    assert "capital of France" not in capsys.readouterr().out


def test_preemption_and_eviction_pass_the_shadow_memory(tmp_path: Path) -> None:
    record = run(
        tmp_path, "executor.verify=true", "engine.num_blocks=40", "engine.max_model_len=400",
        "workload.shared_prefix_tokens=64", "workload.num_requests=12", "workload.output_tokens_max=40",
    )  # fmt: skip
    assert record.status == "completed"
    assert record.metrics["preemptions"] > 0
    assert record.metrics["evictions"] > 0
    assert record.metrics["prefix_cache_hit_rate"] > 0


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["workload=chat", "model=tiny", "model.tokenizer=x.gguf"],
            "workload=chat is text, whose tokens cannot be counted: x.",
        ),
        (
            ["executor.tp=3"],
            r"executor.tp=3: 16 attention heads do not divide evenly; this model runs with executor.tp=",
        ),
        (["executor.hardware=abacus"], "executor.hardware=abacus does not exist; choose from h200"),
        (["model=qwen3_32b", "executor.hardware=rtx4090"], "no KV block fits"),
        (["cost_model=profiled", "executor.hardware=a100"], "experiment=calibrate model=qwen3_0_6b"),
        (["engine.num_blocks=100000000"], "blocks fit"),
    ],
)
def test_what_cannot_be_simulated_says_why(tmp_path: Path, overrides: list[str], reason: str) -> None:
    record = run(tmp_path, *overrides)
    assert record.status == "failed"
    assert reason in record.reason
    assert record.requests == []


def test_more_ranks_and_more_memory_hold_more_blocks(tmp_path: Path) -> None:
    sizes = []
    for index, override in enumerate(("executor.hardware=a100", "executor.hardware=h200", "executor.tp=2")):
        more = ["engine.max_num_seqs=1000", "model=llama3_8b", "workload.num_requests=1"]
        sizes.append(run(tmp_path / str(index), override, *more).effective["num_blocks"])
    assert sizes[0] < sizes[1] < sizes[2] / 2


def test_a_calibration_on_this_machine_can_be_simulated(tmp_path: Path) -> None:
    small = [
        "model=tiny", "engine.max_num_seqs=4", "engine.max_num_batched_tokens=64", "engine.block_size=16",
        "engine.max_model_len=256", "tracker=files",
    ]  # fmt: skip
    cell = CellInfo(folder=tmp_path / "calibrate", cell_id="x", config={})
    cfg = compose(
        ["experiment=calibrate", *small, "graph=eager", "executor.device=cpu", "calibrate.num_points=20",
         "calibrate.repeats=2"]
    )  # fmt: skip
    assert run_cell(cfg, cell) == "completed"
    profile = cell.folder / "cpu-tiny-float32-tp1.json"
    assert read_record(cell.folder).metrics["fit_error/eager/median"] is not None
    simulated = run(
        tmp_path / "simulated", *small, "executor.hardware=cpu", "executor.dtype=float32", "cost_model=profiled",
        f"cost_model.path={profile}", "workload.num_requests=4", "workload.prompt_tokens_max=100",
    )  # fmt: skip
    assert simulated.metrics["requests_completed"] == 4
    refused = run(tmp_path / "refused", "cost_model=profiled", f"cost_model.path={profile}")
    assert (refused.status, "hardware is cpu, not h200" in refused.reason) == ("failed", True)
