"""Every preset's tiles fit, in every type, on every card: known before anything is compiled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from framework.execution.kernels.cuda import decode_attention, prefill_attention, skinny, split_linear
from framework.execution.kernels.cuda.shared_memory import fit

KIB = 1024
CARDS = {"T4": 64 * KIB, "A10, RTX 4090": 99 * KIB, "A100": 163 * KIB, "H100, H200": 227 * KIB}
PRESETS = sorted(path for path in (Path(__file__).parents[3] / "conf" / "model").glob("*.yaml"))
SHAPES = {path.stem: OmegaConf.load(path).config for path in PRESETS if OmegaConf.load(path).config}


@pytest.mark.parametrize("limit", [pytest.param(size, id=name) for name, size in CARDS.items()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", SHAPES)
def test_every_tile(preset: str, dtype: torch.dtype, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts as Triton's pipeliner does: it holds `n - 1` of `n` stages at once, with Hopper's instruction all `n`."""
    monkeypatch.setattr(decode_attention, "interpreted", lambda: False)  # which has tiles of its own
    monkeypatch.setattr(prefill_attention, "interpreted", lambda: False)
    shape, size = SHAPES[preset], dtype.itemsize
    hidden, intermediate = shape.hidden_size, shape.intermediate_size
    head_size = shape.get("head_dim") or hidden // shape.num_attention_heads
    outputs = (hidden, (shape.num_attention_heads + 2 * shape.num_key_value_heads) * head_size, shape.vocab_size)
    products = [(hidden, num_outputs, 1) for num_outputs in outputs]
    products += [
        (hidden, intermediate, 2),
        (intermediate, hidden, 1),
        (shape.num_attention_heads * head_size, hidden, 1),
    ]
    for num_inputs, num_outputs, weights in products:
        tile = skinny.choose_skinny_tile(8, num_inputs, num_outputs, weights == 2, dtype, limit)
        assert (tile.num_stages - 1) * (16 + weights * tile.block_n) * tile.block_k * size < limit
        assert tile.block_k >= 16
        for num_rows in (17, 64, 65, 128, 129, 256):
            split = split_linear.choose_split_tile(num_rows, num_inputs, weights == 2, dtype, limit)
            held = split.num_stages - (limit < 227 * KIB)
            assert held * (split.rows + weights * split.block_n) * split.block_k * size < limit
            assert split_linear.part_size(num_inputs) * split_linear.PARTS >= num_inputs
    for kv_dtype in {dtype, torch.float8_e4m3fn}:
        per_token = 2 * head_size * kv_dtype.itemsize
        decode = decode_attention.choose_decode_tile(dtype, kv_dtype, head_size, limit)
        assert (decode.num_stages - 1) * decode.tokens * per_token < limit
        prefill = prefill_attention.choose_prefill_tile(dtype, kv_dtype, head_size, limit)
        queries = prefill.queries * head_size * size
        assert queries + (prefill.num_stages - 1) * prefill.keys * per_token < limit


def test_what_was_measured_on_a_hopper_gpu_is_what_it_gets() -> None:
    assert skinny.choose_skinny_tile(8, 1024, 4096, False, torch.bfloat16, 227 * KIB) == skinny.SkinnyTile(
        32, 512, 4, 5
    )
    assert split_linear.choose_split_tile(64, 1024, True, torch.bfloat16, 227 * KIB).num_stages == 5
    assert skinny.choose_skinny_tile(8, 1024, 4096, False, torch.bfloat16, 99 * KIB) == skinny.SkinnyTile(32, 512, 4, 2)


def test_stages_go_first_then_the_length() -> None:
    assert fit(128, 4, 1000, limit=1_000_000) == (128, 4)
    assert fit(128, 4, 1000, limit=300 * KIB) == (128, 3)
    assert fit(128, 4, 1000, limit=100 * KIB) == (64, 2)
    assert fit(128, 4, 1000, fixed_bytes=60 * KIB, limit=100 * KIB) == (32, 2)
