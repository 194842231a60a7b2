"""The fused decoder on two ranks computes what the modules do on one. Ranks are threads whose kernels take turns."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from framework.config.compose import compose
from framework.config.schema import ModelSection
from framework.config.settings import settings_of
from framework.execution.kernels.cuda import decoder as fused
from framework.models.decoder import DecoderLM
from framework.models.layers.group import TensorParallelGroup
from framework.models.loading.load import load_model
from tests.layers.thread_group import run_ranks

KERNELS = ("rms_norm", "rotate_and_write", "silu_and_mul", "skinny_linear", "split_linear")


def load(model: ModelSection, group: TensorParallelGroup | None = None) -> DecoderLM:
    return load_model(
        model, device=torch.device("cpu"), dtype=torch.float32, group=group, max_model_len=64, with_tokenizer=False
    ).model


def attend(layer: int, q_TNH: torch.Tensor, *kv: torch.Tensor) -> torch.Tensor:
    """Stands in for attention: any function of a rank's own heads will do."""
    return q_TNH * (2 + layer)


def one_at_a_time(turn: threading.Lock, kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with turn:
        return kernel(*args, **kwargs)


@pytest.mark.parametrize("num_tokens", [2, 20])  # few and dozens: different products
def test_two_ranks_compute_what_one_does(device: str, monkeypatch: pytest.MonkeyPatch, num_tokens: int) -> None:
    if device != "cpu":
        pytest.skip("tests/gpu runs it in processes")
    turn = threading.Lock()
    for name in KERNELS:
        monkeypatch.setattr(fused, name, functools.partial(one_at_a_time, turn, getattr(fused, name)))
    token_ids, positions = torch.arange(num_tokens) * 11 % 500, torch.arange(num_tokens)
    cfg = compose(["model=tiny", "tracker=files", "model.config.num_hidden_layers=1"])
    wanted = settings_of(cfg).model
    one = load(wanted)
    with torch.inference_mode():
        hidden = one(token_ids, positions, attend)
        logits = one.compute_logits(hidden)

    def rank(group: TensorParallelGroup) -> tuple[torch.Tensor, torch.Tensor]:
        model = load(wanted, group)
        network = fused.FusedDecoder(model, split_rows=128)
        caches = [torch.zeros(2, 4, 16, model.num_kv_heads, 16) for _ in model.layers]
        mine = network.forward(token_ids.int(), positions, torch.full_like(positions, -1), caches, attend)
        return mine, network.compute_logits(mine)

    for mine, mine_logits in run_ranks(2, rank):
        torch.testing.assert_close(mine, hidden, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mine_logits, logits, rtol=1e-4, atol=1e-3)
