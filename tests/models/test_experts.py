"""Mixtures of experts: what is published of their sizes, what a router is recorded to do, and wrong configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from framework.conformance.checks.family import model_of, write_model
from framework.execution.kernels.cuda.applies import unfused_reason
from framework.interfaces.cost_model import ModelShape
from framework.models.config import ModelConfig
from framework.models.decoder import DecoderLM
from framework.models.layers.experts import reset_router_load, router_load
from framework.models.loading.load import load_model
from framework.models.shape import model_shape
from framework.models.split import config_of_rank, possible_sizes
from framework.registry import FAMILIES
from framework.registry.discovery import discover
from tests.models.dense_forward import logits

QWEN3_30B_A3B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
}
MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"],
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 32768,
}


def load(folder: Path) -> DecoderLM:
    cfg = {"path": str(folder), "weights": "auto"}
    return load_model(cfg, device=torch.device("cpu"), dtype=torch.float32).model


@pytest.mark.parametrize(
    ("values", "billions", "active_billions"), [(QWEN3_30B_A3B, 30.53, 3.35), (MIXTRAL_8X7B, 46.70, 12.88)]
)
def test_sizes_are_the_published_ones(values: dict[str, object], billions: float, active_billions: float) -> None:
    config = ModelConfig.from_hf(values)
    assert config.num_parameters / 1e9 == pytest.approx(billions, rel=1e-3)
    assert config.num_active_parameters / 1e9 == pytest.approx(active_billions, rel=2e-3)
    shape: ModelShape = model_shape(config)
    embeddings = 2 * config.vocab_size * config.hidden_size
    for count, of_a_layer in (
        (config.num_parameters, shape.layer_parameters),
        (config.num_active_parameters, shape.active_layer_parameters),
    ):
        assert of_a_layer * config.num_layers == pytest.approx(count - embeddings, rel=1e-3)  # but for norms
    assert "experts" in str(unfused_reason(config))
    assert possible_sizes(config)[:3] == [1, 2, 4]
    assert config_of_rank(config, 2).num_parameters == pytest.approx(config.num_parameters / 2, rel=0.02)


def test_the_record_says_how_a_router_spreads(tmp_path: Path) -> None:
    discover()
    write_model(model_of("mixtral", 0), FAMILIES.get("mixtral")(), tmp_path)
    model = load_model(
        {"path": str(tmp_path), "weights": "auto"}, device=torch.device("cpu"), dtype=torch.float32
    ).model
    assert router_load(model) == {}
    logits(model, list(range(50)))
    load = router_load(model)["router_load"]
    assert load["tokens"] == 50
    assert 1 < load["busiest_mean"] <= load["busiest_max"] <= 5 / 2  # a token goes to two of five
    reset_router_load(model)
    assert router_load(model) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_experts_per_tok": 9, "num_local_experts": 8},
            "num_experts_per_tok=9 must be at most num_local_experts=8",
        ),
        ({"num_local_experts": 0}, "num_local_experts=0 must be an integer of at least 1"),
        ({"num_experts_per_tok": "2"}, "num_experts_per_tok='2' must be an integer"),
    ],
)
def test_wrong_counts_are_named(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL_8X7B | changes))
    with pytest.raises(ValueError, match=f"{tmp_path}/config.json: {message}"):
        load(tmp_path)


def test_experts_and_tensors_that_differ_are_named(tmp_path: Path) -> None:
    discover()
    write_model(model_of("mixtral", 0), FAMILIES.get("mixtral")(), tmp_path)
    config, file = tmp_path / "config.json", tmp_path / "model.safetensors"
    values, tensors = json.loads(config.read_text()), load_file(file)

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=f"{tmp_path}.*{message}"):
            load(tmp_path)

    config.write_text(json.dumps(values | {"num_local_experts": 6}))
    refused(r"tensor model.layers.0.block_sparse_moe.experts.5.w1.weight is missing \(and 11 more\)")
    config.write_text(json.dumps(values | {"num_local_experts": 4}))
    refused(
        r"tensor model.layers.\d.block_sparse_moe.experts.4.w\d.weight doesn't belong to this model \(and 11 more\)"
    )
    config.write_text(json.dumps(values))
    name = "model.layers.2.block_sparse_moe.experts.1.w2.weight"
    save_file(tensors | {name: tensors[name][:, :-1].contiguous()}, file)
    refused(rf"tensor {name} has shape \[64, 95\], but the config asks for \[64, 96\]")
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, file)
    refused(f"tensor {name} holds NaN")
