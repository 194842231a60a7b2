"""Copies of a configuration with other values."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from framework.config.compose import compose
from framework.config.settings import Settings, settings_of
from framework.config.typed import with_exact_attention
from framework.execution.build import build_engine


@pytest.fixture(scope="module")
def fp8() -> Settings:
    return settings_of(compose(["model=tiny", "attention=triton", "executor.kv_dtype=fp8"]))


@pytest.mark.parametrize(
    ("dtypes", "max_model_len", "num_blocks"),
    [
        (("bfloat16", "bfloat16"), 4096, 100),
        (("bfloat16", "float8_e4m3fn"), 4096, 50),
        (("float32", "float8_e4m3fn"), 4096, 25),
        (("bfloat16", "float32"), 4096, 100),
        (("bfloat16", "float8_e4m3fn"), 20_000, 79),
        (("bfloat16", "float8_e4m3fn"), None, 50),
    ],
)
def test_exact_attention_gets_the_same_memory(
    fp8: Settings, dtypes: tuple[str, str], max_model_len: int | None, num_blocks: int
) -> None:
    cfg = dataclasses.replace(fp8, engine=dataclasses.replace(fp8.engine, max_model_len=max_model_len))
    effective: dict[str, Any] = {"block_size": 256, "dtype": dtypes[0], "kv_dtype": dtypes[1]}
    exact = with_exact_attention(cfg, 100, effective)
    assert (exact.engine.block_size, exact.engine.num_blocks) == (256, num_blocks)
    assert exact.attention == {"name": "sdpa"}
    assert exact.executor["kv_dtype"] == "auto"
    assert cfg.engine.block_size is None


def test_an_engine_with_few_large_blocks_can_be_built_again() -> None:
    given = ["model=tiny", "executor.device=cpu", "attention=sdpa", "engine.block_size=64", "engine.max_model_len=128"]
    cfg = settings_of(compose([*given, "engine.num_blocks=2"]))
    asked = dataclasses.replace(cfg, engine=dataclasses.replace(cfg.engine, block_size=None))  # what a backend prefers
    effective = {"block_size": 64, "dtype": "float32", "kv_dtype": "float32"}
    built = build_engine(with_exact_attention(asked, 2, effective))
    try:
        assert built.single_engine.config.block_size == 64
    finally:
        built.single_engine.executor.close()
    with pytest.raises(ValueError, match="do not fit into the KV cache of 2 blocks of 16"):
        build_engine(with_exact_attention(asked, 2))
