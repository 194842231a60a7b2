"""The fused forward pass, at every number of tokens that changes its kernels, against the model's own modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from framework.config.schema import ModelSection
from framework.execution.kernels.cuda import decoder, skinny, split_linear
from framework.execution.kernels.cuda.decoder import FusedDecoder
from framework.models.decoder import DecoderLM
from framework.models.loading.load import load_model
from tests.parity.families import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DecoderLM:
    path: Path = tmp_path_factory.mktemp("qwen3")
    save_model("qwen3", path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cfg = ModelSection(name="qwen3", path=str(path))
    return load_model(cfg, device=device, dtype=torch.float32, max_model_len=64, with_tokenizer=False).model


def stand_in(layer: int, q_TNH: Tensor, *kv: Tensor) -> Tensor:
    """For attention: something of the queries alone."""
    return (q_TNH * (layer + 1)).contiguous()


@pytest.mark.parametrize(("num_tokens", "split_rows"), [(1, 128), (2, 128), (2, 16), (17, 128), (17, 16), (17, 0)])
@torch.inference_mode()
def test_hidden_states_and_cache(model: DecoderLM, num_tokens: int, split_rows: int) -> None:
    config = model.config
    device = model.embed_tokens.weight.device
    ids = torch.randint(config.vocab_size, (num_tokens,), generator=torch.Generator().manual_seed(num_tokens))
    ids, position = ids.to(device, torch.int32), torch.arange(num_tokens, device=device)
    shape = (2, 1, 64, config.num_kv_heads, config.head_size)
    caches = [torch.full(shape, torch.nan, device=device) for _ in range(config.num_layers)]
    seen: list[tuple[Tensor, Tensor]] = []

    def attend(layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor) -> Tensor:
        seen.append((k_TMH.clone(), v_TMH.clone()))
        return stand_in(layer, q_TNH)

    want = model(ids, position, attend)
    fused = FusedDecoder(model, split_rows=split_rows)
    got = fused.forward(ids, position, position, caches, stand_in)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for cache, written in zip(caches, seen, strict=True):
        torch.testing.assert_close(cache[:, 0, :num_tokens], torch.stack(written), rtol=1e-4, atol=1e-4)
        assert cache[:, 0, num_tokens:].isnan().all()
    logits = fused.compute_logits(got)
    torch.testing.assert_close(logits, model.compute_logits(want), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_step_of_each_size_runs_every_kernel(model: DecoderLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up runs `step_sizes`, so that a run compiles nothing. Stand-ins say what would have been launched."""
    launched: set[tuple[object, ...]] = set()

    def skinny_stand_in(x: Tensor, weight: Tensor, *, gated: bool = False, **options: object) -> Tensor:
        rows, outputs = len(x), len(weight) // (2 if gated else 1)
        tile = skinny.choose_skinny_tile(rows, x.shape[1], outputs, gated, torch.bfloat16)
        launched.add(("skinny", tuple(weight.shape), gated, tuple(sorted(options)), rows == 1, tile))
        return x.new_zeros(rows, outputs)

    def split_stand_in(x: Tensor, weight: Tensor, *, gated: bool = False, in_parts: bool = False) -> Tensor:
        rows, outputs = len(x), len(weight) // (2 if gated else 1)
        tile = split_linear.choose_split_tile(rows, x.shape[1], gated, torch.bfloat16)
        launched.add(("split", tuple(weight.shape), gated, in_parts, tile))
        return x.new_zeros(*((split_linear.PARTS,) if in_parts else ()), rows, outputs)

    def add_stand_in(x: Tensor, weight: Tensor) -> Tensor:
        if len(x) <= split_linear.PARTS_ROWS:
            return split_stand_in(x, weight, in_parts=True)
        shape = len(x), len(weight)
        return x.new_zeros(split_linear.PARTS, *shape) if len(x) <= split_linear.BATCH_ROWS else x.new_zeros(shape)

    def norm_stand_in(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
        launched.add(("norm", x.dim() == 3 and len(x), residual is not None))
        return x.new_zeros(*x.shape[-2:])

    monkeypatch.setattr(decoder, "skinny_linear", skinny_stand_in)
    monkeypatch.setattr(decoder, "split_linear", split_stand_in)
    monkeypatch.setattr(decoder, "add_product", add_stand_in)
    monkeypatch.setattr(decoder, "rms_norm", norm_stand_in)
    monkeypatch.setattr(decoder, "embed", lambda ids, weight: weight.new_zeros(len(ids), weight.shape[1]))
    monkeypatch.setattr(decoder, "silu_and_mul", lambda x: x[:, : x.shape[1] // 2])
    size = model.config.num_heads * model.config.head_size
    monkeypatch.setattr(
        decoder, "rotate_and_write", lambda qkv, *rest: qkv[:, :size].unflatten(1, (-1, model.config.head_size))
    )
    fused = FusedDecoder(model, split_rows=128)
    caches: list[Tensor] = [torch.empty(0)] * model.config.num_layers

    def launches(count: int) -> set[tuple[object, ...]]:
        launched.clear()
        ids = torch.zeros(count, dtype=torch.int32, device=model.embed_tokens.weight.device)
        fused.compute_logits(fused.forward(ids, ids.long(), ids.long(), caches, stand_in))
        return set(launched)

    at_start = set().union(*(launches(count) for count in fused.step_sizes))
    for count in (*range(1, 140), 257, 500, 1025, 3000):
        assert launches(count) <= at_start, f"a step of {count} tokens"
