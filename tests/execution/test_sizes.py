"""Sizes and types that the configuration leaves open are chosen for the device, and the record says which and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from omegaconf import OmegaConf

from framework.app.experiment import run_cell
from framework.app.llm import LLM
from framework.app.progress import chosen
from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.execution.device.device import torch_dtype
from framework.execution.device.dtype import choose_dtype, choose_kv_dtype
from framework.execution.device.sizes import Room, activation_bytes, choose_step, kv_token_bytes
from framework.models.loading.read_config import load_config, weights_dtype
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo
from framework.simulation.build import build_simulated, read_deployment
from framework.simulation.hardware import HARDWARE
from tests.loading.gguf_writer import write_gguf

SIMULATED = ["executor=simulated", "workload=synthetic", "model.weights=random", "tracker=files"]


def effective(*overrides: str) -> dict[str, Any]:
    return build_simulated(settings_of(compose([*SIMULATED, *overrides]))).effective


def sizes(*overrides: str) -> tuple[Any, ...]:
    found = effective(*overrides)
    return found["max_num_seqs"], found["max_num_batched_tokens"], found["block_size"]


@pytest.mark.parametrize(
    ("model", "hardware", "want"),
    [
        ("qwen3_0_6b", "h200", (256, 16384, 16)),
        ("qwen3_0_6b", "h100", (256, 16384, 16)),
        ("qwen3_32b", "h200", (256, 16384, 16)),
        ("qwen3_8b", "rtx4090", (128, 8192, 16)),
        ("qwen3_0_6b", "cpu", (64, 2048, 16)),
    ],
)
def test_steps_fit_the_device(model: str, hardware: str, want: tuple[int, ...]) -> None:
    assert sizes(f"model={model}", f"executor.hardware={hardware}", "engine.max_model_len=2048") == want


@pytest.mark.parametrize("model", ["qwen3_0_6b", "qwen3_8b", "llama2_7b", "qwen3_32b"])
@pytest.mark.parametrize("device", [one for one in HARDWARE.values() if one.name != "cpu"], ids=lambda one: one.name)
@pytest.mark.parametrize("tp", [1, 4])
def test_what_is_chosen_has_room(model: str, device: Any, tp: int) -> None:
    settings = settings_of(compose([*SIMULATED, f"model={model}"]))
    config = load_config(settings.model)
    room = Room(memory_bytes=int(device.memory_gib * 2**30), item_bytes=2, kv_item_bytes=2, tp=tp)
    rows, tokens, _ = choose_step(settings.engine, config, room)
    left = 0.9 * device.memory_gib * 2**30 - 2 * config.num_parameters / tp
    assert 8 <= rows <= 256
    assert 2048 <= tokens <= 16384
    assert rows == 8 or rows * 256 * kv_token_bytes(config, 2, tp) <= left
    assert tokens == 2048 or activation_bytes(config, tokens, rows, 2, tp) <= left / 8


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        (["engine.max_num_seqs=5"], (5, 5 * 128, 16)),
        (["engine.max_num_batched_tokens=40"], (40, 40, 16)),
        (["engine.max_num_seqs=7", "engine.max_num_batched_tokens=9", "engine.block_size=4"], (7, 9, 4)),
        (["attention=flash"], (256, 16384, 256)),
        (["attention=split", "attention.prefill=flash", "attention.decode=flash"], (256, 16384, 256)),
    ],
)
def test_what_is_asked_for_stays_and_the_rest_follows(asked: list[str], want: tuple[int, ...]) -> None:
    assert sizes("model=tiny", "engine.max_model_len=128", *asked) == want


def test_the_record_says_what_was_chosen_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = compose([*SIMULATED, "model=tiny", "attention=flash", "engine.max_num_seqs=4", "workload.num_requests=2"])
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    assert run_cell(cfg, CellInfo(folder=tmp_path, cell_id="x", config=config)) == "completed"
    record = read_record(tmp_path)
    assert record.requested["engine"]["block_size"] is None
    assert (record.effective["block_size"], record.effective["max_num_seqs"]) == (256, 4)
    reasons = record.effective["reasons"]
    assert reasons["block_size"] == "attention=flash prefers it"
    assert set(reasons) == {"dtype", "block_size", "max_num_batched_tokens"}  # and no reason for what was asked for
    printed = capsys.readouterr().out
    assert f"chosen: {chosen(record.requested, record.effective)}\n" in printed
    assert "engine.block_size=256" in printed
    assert "engine.max_num_seqs" not in printed


def test_a_cpu_keeps_the_sizes_that_suit_it() -> None:
    with LLM("tiny", device="cpu", max_model_len=64) as llm:
        assert (llm.effective["max_num_seqs"], llm.effective["max_num_batched_tokens"]) == (64, 2048)
        assert llm.effective["block_size"] == 16
        reasons: Any = llm.effective["reasons"]
        assert set(reasons) == {"dtype", "block_size", "max_num_seqs", "max_num_batched_tokens"}


@pytest.mark.parametrize(
    ("asked", "device", "weights", "want"),
    [
        ("auto", "cpu", "bfloat16", "float32"),
        ("auto", "cuda", "bfloat16", "bfloat16"),
        ("auto", "cuda", "float16", "float16"),
        ("auto", "cuda", "float32", "float16"),
        ("auto", "cuda", "GGUF", "float16"),
        ("auto", "cuda", None, "bfloat16"),
        ("bfloat16", "cuda", "float32", "bfloat16"),
        ("float32", "cuda", "bfloat16", "float32"),
    ],
)
def test_the_dtype_is_that_of_the_weights(asked: str, device: str, weights: str | None, want: str) -> None:
    dtype, reason = choose_dtype(asked, device, weights)
    assert dtype == want
    assert reason
    assert isinstance(getattr(torch, dtype), torch.dtype)


@pytest.mark.parametrize(("kind", "want"), [("F32", "GGUF"), ("Q8_0", "GGUF"), ("BF16", "bfloat16")])
def test_a_gguf_file_of_bfloat16_is_bfloat16(
    kind: str, want: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVELAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    write_gguf(path, quantisation=GGMLQuantizationType[kind])
    cfg = {"path": str(path), "weights": "auto"}
    assert weights_dtype(cfg, load_config(cfg)) == want


def test_a_gguf_file_never_was_bfloat16() -> None:
    """Its preset has the config of the published weights, which were."""
    cfg = settings_of(compose(["model=smollm2"])).model
    assert load_config(cfg).dtype == "bfloat16"
    assert weights_dtype(cfg, load_config(cfg)) == "GGUF"
    random = settings_of(compose(["model=smollm2", "model.weights=random"])).model
    assert weights_dtype(random, load_config(random)) == "bfloat16"


@pytest.mark.parametrize("kv_dtype", ["auto", "float32", "bfloat16", "float16", "fp8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_local_and_simulated_mean_the_same_types(dtype: str, kv_dtype: str) -> None:
    types = [f"executor.dtype={dtype}", f"executor.kv_dtype={kv_dtype}"]
    deployment = read_deployment(settings_of(compose([*SIMULATED, "model=tiny", *types])))
    assert deployment.dtype == choose_dtype(dtype, "cuda", None)[0]
    assert torch_dtype(deployment.dtype).itemsize == deployment.item_bytes
    assert torch_dtype(deployment.kv_dtype).itemsize == deployment.kv_item_bytes
    assert deployment.kv_dtype == choose_kv_dtype(kv_dtype, deployment.dtype)
