"""Values that types cannot refuse: each is named with its limit and what to use instead."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from framework.config.check import check
from framework.config.compose import compose


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    return compose(["workload=synthetic"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.block_size=12", r"engine\.block_size=12: must be a power of two; use null"),
        ("engine.block_size=0", r"engine\.block_size=0"),
        ("engine.max_num_seqs=0", r"engine\.max_num_seqs=0: must be at least 1"),
        ("engine.max_num_batched_tokens=0", r"max_num_batched_tokens=0: must be at least 1"),
        ("engine.max_model_len=1", r"max_model_len=1: must be at least 2"),
        ("engine.num_blocks=0", r"num_blocks=0: must be at least 1"),
        ("engine.kv_memory_fraction=0", r"kv_memory_fraction=0.*\(0, 1\]"),
        ("engine.kv_memory_fraction=1.5", r"kv_memory_fraction=1.5.*\(0, 1\]"),
        ("engine.kv_memory_fraction=nan", r"kv_memory_fraction=nan"),
        ("engine.overlap=2", r"engine\.overlap=2: must be 0 or 1"),
        ("executor.device=tpu", r"executor\.device=tpu: 'tpu' is not one of auto, cpu, cuda"),
        ("executor.dtype=int3", r"executor\.dtype=int3: 'int3' is not one of auto, float32"),
        ("executor.tp=0", r"executor\.tp=0"),
        ("executor.threads=0", r"executor\.threads=0"),
        ("model.weights=some", r"model\.weights=some: 'some' is not one of auto, random"),
        ("compile.mode=default", r"compile\.mode=default: needs compile\.level"),
        ("slo.ttft_s=0", r"slo\.ttft_s=0"),
        ("workload.arrival=never", r"workload\.arrival=never: 'never' is not one of all, poisson"),
        ("objective=output_tokens_per_sec", r"objective=\[output_tokens_per_sec\].*did you mean output_tokens_per_s"),
        ("objective=client/a/ttft_s/p42", r"objective=\[client/a/ttft_s/p42\]: no run has a metric"),
        ("scheduler.name=nonsense", r"scheduler\.name=nonsense does not exist; choose from andes, chunked_prefill"),
    ],
)
def test_bad_values_are_refused(composed: DictConfig, override: str, message: str) -> None:
    cfg = composed.copy()
    key, _, value = override.partition("=")
    OmegaConf.update(cfg, key, [value] if key == "objective" else value)
    with pytest.raises(ValueError, match=message):
        check(cfg)


@pytest.mark.parametrize(
    "override",
    [
        "engine.block_size=1",
        "engine.block_size=256",
        "engine.max_num_seqs=1",
        "engine.max_model_len=2",
        "engine.num_blocks=1",
        "engine.kv_memory_fraction=1",
        "engine.overlap=0",
        "executor.device=cuda",
        "executor.threads=1",
        "slo.ttft_s=0.001",
        "workload.arrival=gamma",
    ],
)
def test_values_at_their_limits_are_fine(composed: DictConfig, override: str) -> None:
    cfg = composed.copy()
    key, _, value = override.partition("=")
    OmegaConf.update(cfg, key, value)
    check(cfg)


@pytest.mark.parametrize("value", ["0", "-1", "inf"])
def test_memory_of_a_simulated_device(value: str) -> None:
    with pytest.raises(ValueError, match=r"memory_gib=.*: must be above 0; use null for that of executor\.hardware"):
        compose(["workload=synthetic", "executor=simulated", f"executor.memory_gib={value}"])
