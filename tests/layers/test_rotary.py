"""RoPE tables against `transformers`, for each scaling and both forms of the config."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from framework.models.layers.placement import Placement
from framework.models.layers.rope_config import RopeConfig
from framework.models.layers.rotary import RotaryEmbedding, cos_sin_table

HEAD_SIZE = 16
SCALINGS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn_tuned": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
        "truncate": False,
    },
    "yarn_attention_factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 1.5,
    },
}


def hf_config(scaling: dict) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=4 * HEAD_SIZE,
        num_attention_heads=4,
        max_position_embeddings=64,
        rope_parameters={"rope_theta": 500.0, **scaling},
    )


@pytest.mark.parametrize("name", SCALINGS)
def test_table_equals_transformers(name):
    config = hf_config(SCALINGS[name])
    cos, sin = LlamaRotaryEmbedding(config)(torch.empty(1), torch.arange(64)[None])
    table = cos_sin_table(RopeConfig.from_hf(config.to_dict()), HEAD_SIZE, 64)
    torch.testing.assert_close(table[:, : HEAD_SIZE // 2], cos[0, :, : HEAD_SIZE // 2], rtol=0, atol=1e-6)
    torch.testing.assert_close(table[:, HEAD_SIZE // 2 :], sin[0, :, : HEAD_SIZE // 2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SCALINGS)
def test_old_and_new_config_forms_agree(name):
    old = {"max_position_embeddings": 64, "rope_theta": 500.0, "rope_scaling": SCALINGS[name]}
    if "factor" in SCALINGS[name]:
        old["rope_scaling"] = {k: v for k, v in SCALINGS[name].items() if k != "rope_type"} | {
            "type": SCALINGS[name]["rope_type"]
        }
    assert RopeConfig.from_hf(old) == RopeConfig.from_hf(hf_config(SCALINGS[name]).to_dict())


def test_dynamic_ntk_past_the_original_length_equals_transformers_token_by_token():
    config = hf_config(SCALINGS["dynamic"])
    table = cos_sin_table(RopeConfig.from_hf(config.to_dict()), HEAD_SIZE, 128)
    rotary = LlamaRotaryEmbedding(config)
    for position in (63, 64, 65, 90, 127):
        cos, _ = rotary(torch.empty(1), torch.tensor([[position]]))
        torch.testing.assert_close(table[position, : HEAD_SIZE // 2], cos[0, 0, : HEAD_SIZE // 2], rtol=0, atol=2e-5)


def test_rotation_equals_transformers():
    config = hf_config(SCALINGS["yarn"])
    positions = torch.tensor([5, 0, 63, 17])
    q, k = torch.randn(4, 4, HEAD_SIZE), torch.randn(4, 2, HEAD_SIZE)
    place = Placement(torch.device("cpu"), torch.float32)
    rotary = RotaryEmbedding(RopeConfig.from_hf(config.to_dict()), HEAD_SIZE, 64, place=place)
    rotated = rotary.rotate(torch.cat((q, k), dim=1), *rotary.angles(positions))
    cos, sin = LlamaRotaryEmbedding(config)(q, positions[None])
    expected = torch.cat(apply_rotary_pos_emb(q, k, cos[0], sin[0]), dim=1)
    torch.testing.assert_close(rotated, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        (
            {"rope_type": "ntk"},
            "'ntk' is not supported; supported are default, linear, dynamic, llama3, yarn",
        ),
        ({"rope_type": "linear"}, "needs factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ],
)
def test_unsupported_settings_are_named(rope, message):
    with pytest.raises(ValueError, match=message):
        RopeConfig.from_hf({"max_position_embeddings": 64, "rope_parameters": rope})
