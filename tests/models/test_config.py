"""Reading configs: families, lengths, counts, and what is refused."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from framework.models.config import ModelConfig
from framework.models.decoder import DecoderLM
from framework.models.loading.load import load_config
from framework.models.weight_slots import weight_slots

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def test_defaults_are_those_of_the_transformers_classes():
    for config_class in (LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config):
        full = config_class(sliding_window=None).to_dict()
        sparse = {key: full[key] for key in (*list(LLAMA)[1:], "model_type")} | {"sliding_window": None}
        if "sliding_window" not in config_class().to_dict():
            full.pop("sliding_window", None)
        read, expected = ModelConfig.from_hf(sparse), ModelConfig.from_hf(full)
        for field in ("num_kv_heads", "head_size", "rms_eps", "tie_embeddings", "qkv_bias", "qk_norm", "rope"):
            assert getattr(read, field) == getattr(expected, field), (config_class, field)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "GPT2LMHeadModel is not .* LlamaForCausalLM, .*Qwen2For.*framework new model NAME",
        ),
        (
            {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"},
            "DeepseekV3ForCausalLM is not a supported",
        ),
        ({"architectures": None, "model_type": "gemma"}, "model_type='gemma' is not"),
        ({"hidden_act": "tanh"}, "hidden_act='tanh' is not supported; supported are silu, swish, gelu"),
        ({"hidden_act": ["silu"]}, r"hidden_act=\['silu'\] is not supported"),
        ({"hidden_size": None}, "LlamaForCausalLM lacks hidden_size"),
        ({"rope_scaling": {"type": "su", "factor": 2.0}}, "rope_type='su' is not supported; supported are default"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised with 'fp8' are not supported"),
        ({"quantization_config": "fp8"}, "quantised with 'fp8' are not supported"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantised with 'mlx' are not supported"),
        ({"architectures": "LlamaForCausalLM"}, "architectures='LlamaForCausalLM' must be a list of names"),
        ({"vocab_size": "96"}, "vocab_size='96' must be an integer of at least 1"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be an integer of at least 1"),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0 must be an integer of at least 1"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4 must be a multiple of num_key_value_heads=3"),
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"head_dim": True}, "head_dim=True must be an integer"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5' must be a finite number of at least 0"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps=nan must be a finite number"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false' must be true or false"),
        ({"attention_bias": 1}, "attention_bias=1 must be true or false"),
        ({"max_position_embeddings": 1.5}, "max_position_embeddings=1.5 must be an integer"),
        ({"rope_theta": 0}, "rope_theta=0 must be a finite number of at least 1e-09"),
        ({"rope_scaling": "yarn"}, "rope_scaling='yarn' must be an object"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor='2' must be a finite number"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor=0 must be a finite number of at least"),
        ({"rope_scaling": {"type": ["yarn"]}}, r"rope_type=\['yarn'\] is not supported"),
        ({"eos_token_id": ["2"]}, r"eos_token_id=\['2'\] must be a token id"),
        ({"eos_token_id": -1}, "eos_token_id=-1 must be a token id"),
        ({"bos_token_id": [1]}, r"bos_token_id=\[1\] must be an integer"),
    ],
)
def test_unsupported_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf({**LLAMA, **changes})


def test_an_absent_key_and_null_differ_as_in_transformers():
    for config_class, family in ((Qwen3Config, "Qwen3"), (LlamaConfig, "Llama")):
        for changes in ({}, {"num_key_value_heads": None}):
            given = {**LLAMA, "num_attention_heads": 32, "hidden_size": 64, **changes}
            expected = config_class(**{key: value for key, value in given.items() if key != "architectures"})
            given |= {"architectures": [f"{family}ForCausalLM"], "sliding_window": None}
            assert ModelConfig.from_hf(given).num_kv_heads == expected.num_key_value_heads, (family, changes)


def test_swish_is_another_name_of_silu():
    assert ModelConfig.from_hf({**LLAMA, "hidden_act": "swish"}).num_layers == 2


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}, "rope_scaling": YARN},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_scaling": YARN, "rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_scaling": {**YARN, "rope_theta": 7e5}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_scaling": YARN},
    ],
)
@pytest.mark.filterwarnings("ignore:rope_scaling replaces")
def test_rope_scaling_stands_in_the_place_of_rope_parameters_as_in_transformers(changes):
    values = {**LLAMA, "max_position_embeddings": 256, **changes}
    expected = LlamaConfig.from_dict(copy.deepcopy(values)).rope_parameters
    read = ModelConfig.from_hf(values).rope
    assert (read.rope_type, read.rope_theta) == (expected["rope_type"], expected["rope_theta"])
    assert read.factor == expected.get("factor", 1.0)
    if read.rope_type == "yarn":
        assert read.original_max_position == expected["original_max_position_embeddings"]


def test_a_theta_that_rope_scaling_drops_is_named():
    values = {**LLAMA, "rope_parameters": {"rope_theta": 1e6}, "rope_scaling": YARN}
    with pytest.warns(UserWarning, match=r"rope_theta=1000000.0: 10000 is used; write rope_theta into rope_scaling"):
        ModelConfig.from_hf(values)


def test_windows_are_those_of_transformers():
    mistral = {**LLAMA, "architectures": ["MistralForCausalLM"], "num_key_value_heads": 2}
    assert ModelConfig.from_hf(mistral).sliding_window == MistralConfig().sliding_window  # an absent key is not null
    mistral["sliding_window"] = 64
    config = ModelConfig.from_hf(mistral)
    assert (config.windows, config.windows_within(65), config.windows_within(64)) == ((64, 64), (64, 64), ())
    qwen2 = {**mistral, "architectures": ["Qwen2ForCausalLM"], "max_window_layers": 1}
    assert ModelConfig.from_hf(qwen2).sliding_window is None  # use_sliding_window is off
    assert ModelConfig.from_hf({**qwen2, "use_sliding_window": True}).windows == (None, 64)
    assert ModelConfig.from_hf({**qwen2, "use_sliding_window": True, "max_window_layers": 2}).sliding_window is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": 0}, "sliding_window=0 must be an integer of at least 1; correct the config"),
        ({"sliding_window": -1}, "sliding_window=-1 must be an integer of at least 1"),
        ({"sliding_window": 8.5}, "sliding_window=8.5 must be an integer"),
        ({"sliding_window": 8, "layer_types": ["full_attention"]}, "must be a list of 2 names, one per layer"),
        (
            {"sliding_window": 8, "layer_types": ["full_attention", "chunked_attention"]},
            "each sliding_attention or full",
        ),
        ({"sliding_window_pattern": 0}, "sliding_window_pattern=0 must be an integer of at least 1"),
        ({"final_logit_softcapping": 0}, "final_logit_softcapping=0 must be a finite number of at least 1e-09"),
        ({"hidden_activation": "tanh"}, "hidden_activation='tanh' is not supported; supported are silu"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention=true is not supported"),
    ],
)
def test_wrong_windows_and_caps_are_named_with_their_file(changes, message, tmp_path):
    values = {**LLAMA, "architectures": ["Gemma3ForCausalLM"], "num_key_value_heads": 2, "head_dim": 8, **changes}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{tmp_path}/config.json: .*{message}"):
        load_config({"path": str(tmp_path)})


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "SmolLM3",
            {"no_rope_layers": [1]},
            r"no_rope_layers=\[1\] must be a list with a 0 or a 1 for each of 2 layers",
        ),
        ("SmolLM3", {"no_rope_layers": [1, 2]}, "must be a list with a 0 or a 1"),
        ("Granite", {"logits_scaling": 0}, "logits_scaling=0 must be a finite number of at least 1e-09"),
        ("Phi3", {"partial_rotary_factor": 1.5}, "partial_rotary_factor=1.5 is not supported; above 0 and up to 1.0"),
        ("Llama", {"partial_rotary_factor": 0.5}, r"only 1.0 \(the whole head\) is in this family"),
        (
            "Phi3",
            {"rope_scaling": {"type": "su", "short_factor": 1, "long_factor": [1]}},
            "short_factor=1 must be a list",
        ),
        (
            "Phi3",
            {"rope_scaling": {"type": "longrope", "short_factor": [0], "long_factor": [1]}},
            "short_factor=0 must be",
        ),
    ],
)
def test_wrong_settings_of_a_family_are_named(family, changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf({**LLAMA, "num_key_value_heads": 2, "architectures": [f"{family}ForCausalLM"], **changes})


def test_longrope_runs_one_of_its_lists():
    rope = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    phi3 = {**LLAMA, "architectures": ["Phi3ForCausalLM"], "rope_scaling": rope, "original_max_position_embeddings": 32}
    for length in (None, 32):
        config = ModelConfig.from_hf(phi3, max_model_len=length)
        assert (config.rope.divisors, config.max_model_len) == ((1.0,) * 4, 32)
    with pytest.warns(
        UserWarning, match=r"max_model_len=33 is above 32, so every sequence runs on longrope's long_fac"
    ):
        config = ModelConfig.from_hf(phi3, max_model_len=33)
    assert (config.rope.divisors, config.max_model_len) == ((2.0,) * 4, 128)


def test_gemma_3_counts_its_scaled_length():
    linear = {"rope_type": "linear", "factor": 8.0}
    gemma3 = {**LLAMA, "architectures": ["Gemma3ForCausalLM"], "num_key_value_heads": 2, "rope_scaling": linear}
    assert ModelConfig.from_hf(gemma3).max_model_len == LLAMA["max_position_embeddings"]
    assert ModelConfig.from_hf(gemma3).rope.factor == 8.0
    with pytest.raises(ValueError, match=r"layer_types=\[\] must be a list of 2 names"):
        ModelConfig.from_hf({**gemma3, "layer_types": []})


def test_length_limit_follows_the_scaling():
    assert ModelConfig.from_hf(LLAMA).max_model_len == 128
    with pytest.raises(ValueError, match=r"max_model_len=129 must be in \[1, 128\]"):
        ModelConfig.from_hf(LLAMA, max_model_len=129)
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
    assert ModelConfig.from_hf({**LLAMA, "rope_scaling": yarn}).max_model_len == 400


def test_counts():
    config = ModelConfig.from_hf({**LLAMA, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True})
    model = DecoderLM(config, device=torch.device("meta"), dtype=torch.float32)
    shapes = [slot.full_shape for slot in weight_slots(model).values()]
    assert config.num_parameters == sum(math.prod(shape) for shape in shapes)
    matrices = sum(layer.weight.numel() for _, layer in model.linear_layers())
    assert config.matmul_flops_per_token == 2 * matrices
    assert config.kv_values_per_token == 2 * 2 * (2 * 8)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("qwen3_0_6b", 0.596), ("qwen3_8b", 8.191), ("qwen3_32b", 32.762), ("llama3_8b", 8.030), ("smollm2", 0.1345)],
)
def test_presets_have_the_published_number_of_parameters(name, billions):
    preset = OmegaConf.load(Path(__file__).parents[2] / "conf" / "model" / f"{name}.yaml")
    assert load_config(preset).num_parameters / 1e9 == pytest.approx(billions, rel=1e-3)
