"""GGUF metadata: what is read as llama.cpp reads it, and what is refused because it would be dropped."""

import math

import pytest

from framework.models.layers.rope_frequencies import attention_scaling
from framework.models.loading.gguf_config import gguf_config
from framework.models.loading.load import load_config
from tests.loading.gguf_writer import write_gguf


def written(tmp_path, **keys):
    def metadata(writer):
        for key, value in keys.items():
            name = key.replace("__", ".")
            if isinstance(value, bool):
                writer.add_bool(name, value)
            elif isinstance(value, int):
                writer.add_uint32(name, value)
            elif isinstance(value, float):
                writer.add_float32(name, value)
            else:
                (writer.add_array if isinstance(value, list) else writer.add_string)(name, value)

    write_gguf(tmp_path / "tiny.gguf", metadata=metadata)
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize(
    ("keys", "rope_type", "factor"),
    [
        ({}, "default", 1.0),
        ({"llama__rope__scale_linear": 4.0}, "linear", 4.0),
        ({"llama__rope__scaling__factor": 2.0}, "linear", 2.0),  # without a type it is linear
        ({"llama__rope__scaling__factor": 2.0, "llama__rope__scale_linear": 4.0}, "linear", 2.0),
        ({"llama__rope__scaling__type": "none", "llama__rope__scaling__factor": 2.0}, "default", 1.0),
        ({"llama__rope__scaling__type": "linear"}, "default", 1.0),
        ({"llama__rope__scaling__type": "yarn", "llama__rope__scaling__factor": 8.0}, "yarn", 8.0),
    ],
)
def test_rope_scaling(tmp_path, keys, rope_type, factor):
    rope = load_config({"path": str(written(tmp_path, **keys))}).rope
    assert (rope.rope_type, rope.factor) == (rope_type, factor)


def test_the_attention_factor_multiplies_that_of_yarn(tmp_path):
    yarn = {
        "llama__rope__scaling__type": "yarn",
        "llama__rope__scaling__factor": 8.0,
        "llama__rope__scaling__original_context_length": 16,
    }
    usual = 0.1 * math.log(8.0) + 1.0
    for keys, expected in (({}, usual), ({"llama__rope__scaling__attn_factor": 1.5}, 1.5 * usual)):
        rope = load_config({"path": str(written(tmp_path, **yarn, **keys))}).rope
        assert attention_scaling(rope) == pytest.approx(expected)
        assert rope.original_max_position == 16
    more = {"llama__rope__scaling__yarn_beta_fast": 16.0, "llama__rope__scaling__yarn_beta_slow": 2.0}
    rope = load_config({"path": str(written(tmp_path, **yarn, **more))}).rope
    assert (rope.beta_fast, rope.beta_slow) == (16.0, 2.0)


def test_keys_with_neutral_values_and_keys_of_others_are_fine(tmp_path):
    neutral = {
        "llama__expert_count": 0,
        "llama__logit_scale": 1.0,
        "llama__attention__scale": 0.25,  # 1 / sqrt(16)
        "llama__rope__dimension_count": 16,
        "llama__attention__value_length": 16,
        "llama__attention__causal": True,
        "llama__rope__scaling__finetuned": True,
        "general__name": "x",
        "someone__elses__key": 3,
    }
    assert load_config({"path": str(written(tmp_path, **neutral))}).num_layers == 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"llama__expert_count": 8}, "a mixture of experts is not supported"),
        ({"llama__logit_scale": 0.5}, "llama.logit_scale=0.5 is not supported"),
        ({"llama__attention__scale": 0.5}, r"llama.attention.scale=0.5 is not supported; only 1 / sqrt\(16\)"),
        ({"llama__rope__dimension_count": 8}, "rope.dimension_count=8, but the head has 16: a rotation of part"),
        ({"llama__attention__value_length": 8}, "value_length=8, but the head has 16"),
        ({"llama__rope__scaling__attn_factor": 0.5}, "attn_factor=0.5 is supported with yarn only"),
        ({"llama__rope__scaling__type": "longrope"}, "scaling.type='longrope' is not supported"),
        ({"llama__attention__causal": False}, "llama.attention.causal=False is not supported"),
        ({"llama__final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0 is not supported"),
        ({"llama__embedding_scale": 12.0}, "embedding_scale=12.0 is not supported"),
        ({"llama__attention__sliding_window_pattern": 6}, "sliding_window_pattern is not known, and may change"),
        (
            {"llama__new_idea": 1},
            "the key llama.new_idea is not known, and may change what is computed; use the model's",
        ),
        ({"split__count": 3}, "is one part of 3, which is not supported; join them"),
        ({"llama__attention__sliding_window": [8, 8]}, "sliding_window is a list of 2, not an integer"),
        ({"llama__attention__key_length": 0}, "key_length=0 must be at least 1"),
        ({"llama__rope__scale_linear": "4"}, "rope.scale_linear is '4', not a finite number"),
        ({"llama__rope__scale_linear": math.inf}, "rope.scale_linear is inf, not a finite number"),
        ({"llama__rope__scaling__type": 1}, "rope.scaling.type is 1, not a text"),
        ({"llama__rope__scaling__factor": -2.0}, "factor of the rope scaling is -2.0"),
    ],
)
def test_what_would_be_dropped_or_bent_is_refused(tmp_path, keys, message):
    path = written(tmp_path, **keys)
    with pytest.raises(ValueError, match=rf"tiny.gguf:? .*{message}"):
        gguf_config(path)
