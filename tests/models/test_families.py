"""What `framework check` does not see of a family: several ranks, and settings of older checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers.activations import ACT2FN

from framework.conformance.kit.tiny_model import TINY, make_model
from framework.models.config import ModelConfig
from framework.models.hf_values import ACTIVATIONS
from framework.models.layers.activation import make_gate
from framework.models.layers.group import TensorParallelGroup
from framework.models.loading.load import load_model
from framework.registry import FAMILIES
from tests.layers.thread_group import run_ranks
from tests.models.dense_forward import logits

IDS = list(range(0, 120, 7))


@pytest.mark.parametrize(("name", "size"), [("olmo2", 4), ("phi3", 2), ("gemma3_text", 2), ("mixtral", 2)])
def test_ranks_equal_one(name: str, size: int, tmp_path: Path) -> None:
    """Norms over all heads of which two ranks hold the same keys, merged tensors, norms with 1 + w, experts."""
    ModelConfig.from_hf({**TINY, "model_type": "llama"})  # finds the families
    make_model(transformers.AutoConfig.for_model(name, **{**TINY, **FAMILIES.get(name).examples[-1]})).save_pretrained(
        tmp_path
    )

    def rank(group: TensorParallelGroup) -> torch.Tensor:
        cfg = {"path": str(tmp_path), "weights": "auto"}
        return logits(load_model(cfg, device=torch.device("cpu"), dtype=torch.float32, group=group).model, IDS)

    whole = rank(TensorParallelGroup())
    for result in run_ranks(size, rank):
        torch.testing.assert_close(result, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_gate_is_that_of_transformers(name: str) -> None:
    gate_up = torch.linspace(-6, 6, 62).view(2, 31).repeat(1, 2)
    gate, up = gate_up.chunk(2, dim=-1)
    torch.testing.assert_close(make_gate(ACTIVATIONS[name])(gate_up), ACT2FN[name](gate) * up, rtol=1e-5, atol=1e-6)


def test_older_names_of_longrope() -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    read = [
        ModelConfig.from_hf({**TINY, "model_type": "phi3", "rope_scaling": {"type": name, **factors}})
        for name in ("su", "yarn", "longrope")
    ]
    assert read[0] == read[1] == read[2]
    assert read[0].rope.rope_type == "longrope"


def test_random_norms_multiply_by_one() -> None:
    values = {**TINY, "architectures": ["Gemma3ForCausalLM"]}
    cfg = {"weights": "random", "config": values}
    model = load_model(cfg, device=torch.device("cpu"), dtype=torch.float32).model
    assert model.norm.weight.unique().tolist() == [1.0]
    assert model.layers[0].self_attn.qk_norm.weight.unique().tolist() == [1.0]
