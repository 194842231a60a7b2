"""`executor.memory_gib`: a simulated device with another memory holds another cache, and the record says so."""

from __future__ import annotations

import pytest

from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.execution.built import BuiltEngine
from framework.simulation.build import build_simulated


def build(*overrides: str) -> BuiltEngine:
    shape = ["model=qwen3_8b", "model.weights=random", "workload=synthetic", "executor=simulated"]
    return build_simulated(settings_of(compose([*shape, "engine.max_num_seqs=4096", *overrides])))


def blocks(built: BuiltEngine) -> int:
    num_blocks = built.effective["num_blocks"]
    assert isinstance(num_blocks, int)
    return num_blocks


def test_the_cache_grows_with_the_memory() -> None:
    preset = build()
    assert preset.effective["memory_gib"] == 139.8
    assert blocks(build("executor.memory_gib=139.8")) == blocks(preset)
    more = build("executor.memory_gib=239.8")
    assert more.effective["memory_gib"] == 239.8
    # 36 layers of 8 KV heads of 128 in bfloat16, keys and values, 16 tokens per block; 0.9 of the memory may be used
    block_bytes = 36 * 8 * 128 * 2 * 2 * 16
    assert blocks(more) - blocks(preset) == pytest.approx(0.9 * 100 * 2**30 / block_bytes, abs=1)


def test_a_cache_larger_than_the_memory_is_refused_on_the_preset_and_not_on_more() -> None:
    blocks_of_1_tib = 2**40 // (36 * 8 * 128 * 2 * 2 * 16)
    with pytest.raises(ValueError, match=r"num_blocks=\d+ takes 1024\.0 GiB, but .* GiB are free on h200"):
        build(f"engine.num_blocks={blocks_of_1_tib}")
    assert blocks(build(f"engine.num_blocks={blocks_of_1_tib}", "executor.memory_gib=1100")) == blocks_of_1_tib


def test_fp8_halves_a_block() -> None:
    narrow = build("executor.kv_dtype=fp8")
    assert narrow.effective["kv_dtype"] == "float8_e4m3fn"  # as a real executor records it, and a profile names it
    assert blocks(narrow) == pytest.approx(2 * blocks(build()), rel=1e-4)
