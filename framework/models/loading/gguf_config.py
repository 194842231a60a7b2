"""The metadata of a GGUF file as the values of a Hugging Face `config.json`, after llama.cpp's reading of it.

A key that llama.cpp computes with, and that these models have no setting for, is an error unless its value changes
nothing. So is a key of the architecture that is not known here: a newer converter may compute with it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from framework.models.loading.gguf_file import ARCHITECTURES, ROPE_DIVISORS, GGUFFile, open_gguf

_READ = frozenset(
    ["vocab_size", "embedding_length", "feed_forward_length", "block_count", "context_length"]
    + [f"attention.{key}" for key in ("head_count", "head_count_kv", "key_length", "value_length", "sliding_window")]
    + ["attention.layer_norm_rms_epsilon", "attention.scale", "rope.dimension_count", "rope.freq_base"]
    + ["rope.scale_linear"]
    + [f"rope.scaling.{key}" for key in ("type", "factor", "attn_factor", "original_context_length")]
    + ["rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"]
)
_NO_ARITHMETIC = frozenset(["rope.scaling.finetuned", "tensor_data_layout", "pooling_type"])
"""Keys that are notes, or that concern embeddings only."""
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "use_parallel_residual": (False,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.layer_norm_epsilon": (0.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.alpha": (0.0, 1.0),
}
"""Keys that are not supported, with the values for which llama.cpp computes as if they were absent."""
BFLOAT16 = 30
"""The GGMLQuantizationType of tensors in bfloat16."""
_REMEDY = "use the model's safetensors folder or hub id instead"


def gguf_config(path: Path) -> dict[str, Any]:
    """The values of a `config.json` for the file `path`.

    Raises:
        ValueError: naming file and key, for a value that is missing, of a wrong type, or not supported.
    """
    file = open_gguf(path)
    _check_keys(file)
    num_heads = _positive(file, "{arch}.attention.head_count")
    hidden_size = _positive(file, "{arch}.embedding_length")
    head_size = _positive(file, "{arch}.attention.key_length", max(1, hidden_size // num_heads))
    _check_head(file, head_size)
    eos = [file.integer(f"tokenizer.ggml.{key}_token_id", -1) for key in ("eos", "eot", "eom")]
    bos = file.integer("tokenizer.ggml.bos_token_id", -1)
    config = {
        "architectures": [ARCHITECTURES[file.architecture]],
        "model_type": file.architecture,
        "hidden_act": "silu",
        "dtype": "bfloat16" if any(entry.kind == BFLOAT16 for entry in file.tensors.values()) else "float32",
        "vocab_size": _positive(file, "{arch}.vocab_size", len(file.metadata.get("tokenizer.ggml.tokens") or ())),
        "hidden_size": hidden_size,
        "intermediate_size": _positive(file, "{arch}.feed_forward_length"),
        "num_hidden_layers": _positive(file, "{arch}.block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": _positive(file, "{arch}.attention.head_count_kv", num_heads),
        "head_dim": head_size,
        "max_position_embeddings": _positive(file, "{arch}.context_length"),
        "rms_norm_eps": file.number("{arch}.attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": _rope(file),
        "bos_token_id": bos if bos >= 0 else None,
        "eos_token_id": list(dict.fromkeys(token_id for token_id in eos if token_id >= 0)) or None,
    }
    if file.architecture != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if window := file.integer("{arch}.attention.sliding_window", 0):
        if file.architecture == "llama":  # llama.cpp has no architecture of its own for Mistral
            config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
        config |= {"sliding_window": window, "use_sliding_window": True, "max_window_layers": 0}
    return config


def _check_keys(file: GGUFFile) -> None:
    prefix = f"{file.architecture}."
    if file.has("split.count") and file.integer("split.count") > 1:
        raise ValueError(
            f"{file.path} is one part of {file.integer('split.count')}, which is not supported; join them with "
            f"llama.cpp's llama-gguf-split --merge"
        )
    for key, value in file.metadata.items():
        short = key.removeprefix(prefix)
        if not key.startswith(prefix) or short in _READ or short in _NO_ARITHMETIC:
            continue
        neutral = _NEUTRAL.get(short)
        if neutral is None:
            raise ValueError(f"{file.path}: the key {key} is not known, and may change what is computed; {_REMEDY}")
        if value not in neutral:
            what = "a mixture of experts" if short.startswith("expert") else f"{key}={str(value)[:40]}"
            raise ValueError(f"{file.path}: {what} is not supported; {_REMEDY}")


def _check_head(file: GGUFFile, head_size: int) -> None:
    for key, what in (
        ("{arch}.attention.value_length", "values of another size than keys"),
        ("{arch}.rope.dimension_count", "a rotation of part of the head only"),
    ):
        if (size := _positive(file, key, head_size)) != head_size:
            raise ValueError(
                f"{file.path}: {file.name(key)}={size}, but the head has {head_size}: "
                f"{what} is not supported; {_REMEDY}"
            )
    scale = file.number("{arch}.attention.scale", 0.0)
    if scale and not math.isclose(scale, head_size**-0.5, rel_tol=1e-5):
        raise ValueError(
            f"{file.path}: {file.name('{arch}.attention.scale')}={scale} is not supported; only 1 / sqrt({head_size}), "
            f"the usual scale, is; {_REMEDY}"
        )


def _rope(file: GGUFFile) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": file.number("{arch}.rope.freq_base", 10_000.0)}
    # Without a type a factor is linear; scale_linear is its older name.
    kind = file.text("{arch}.rope.scaling.type", "linear")
    factor = file.number("{arch}.rope.scaling.factor", file.number("{arch}.rope.scale_linear", 0.0))
    attention = file.number("{arch}.rope.scaling.attn_factor", 1.0)
    if kind not in ("none", "linear", "yarn"):
        raise ValueError(f"{file.path}: {file.name('{arch}.rope.scaling.type')}={kind!r} is not supported; {_REMEDY}")
    if factor < 0:
        raise ValueError(f"{file.path}: the factor of the rope scaling is {factor}, not above 0; {_REMEDY}")
    scaled = kind != "none" and factor not in (0.0, 1.0)
    if ROPE_DIVISORS in file.tensors:
        if scaled:
            raise ValueError(
                f"{file.path}: {ROPE_DIVISORS} together with rope scaling {kind!r} is not supported; {_REMEDY}"
            )
        divisors = file.read(ROPE_DIVISORS).tolist()
        rope |= {"rope_type": "longrope", "short_factor": divisors, "long_factor": divisors}
        rope |= {"attention_factor": attention}
        # transformers wants to know where the long factors begin; here they are the short ones too
        return rope | {"original_max_position_embeddings": _positive(file, "{arch}.context_length")}
    if kind == "yarn" and scaled:
        rope |= {"rope_type": "yarn", "factor": factor}
        rope["original_max_position_embeddings"] = _positive(
            file, "{arch}.rope.scaling.original_context_length", _positive(file, "{arch}.context_length")
        )
        for key in ("beta_fast", "beta_slow"):
            if file.has(f"{{arch}}.rope.scaling.yarn_{key}"):
                rope[key] = file.number(f"{{arch}}.rope.scaling.yarn_{key}")
        if attention != 1.0:  # multiplies YaRN's own factor, which Hugging Face's setting replaces
            rope["attention_factor"] = attention * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
        return rope
    if attention != 1.0:
        raise ValueError(
            f"{file.path}: {file.name('{arch}.rope.scaling.attn_factor')}={attention} is supported with yarn only; "
            f"{_REMEDY}"
        )
    return rope | {"rope_type": "linear", "factor": factor} if scaled else rope


def _positive(file: GGUFFile, key: str, default: int | None = None) -> int:
    if (value := file.integer(key, default)) < 1:
        raise ValueError(f"{file.path}: {file.name(key)}={value} must be at least 1; download the model again")
    return value
