"""The differences between the supported families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A string as a bias setting names the config key that holds it; defaults are those of the `transformers` class."""

    architecture: str
    qkv_bias: bool | str = "attention_bias"
    output_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = False
    qk_norm: bool = False
    num_kv_heads: int | None = None
    head_size: int | None = None
    windowed: Literal["never", "always", "flag"] = "never"
    """Whether `sliding_window` applies: never, whenever it is set, or if `use_sliding_window` says so."""


_FAMILIES = {
    "llama": Family(architecture="LlamaForCausalLM", mlp_bias="mlp_bias"),
    "mistral": Family(
        architecture="MistralForCausalLM", qkv_bias=False, output_bias=False, num_kv_heads=8, windowed="always"
    ),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM", qkv_bias=True, output_bias=False, num_kv_heads=32, windowed="flag"
    ),
    "qwen3": Family(architecture="Qwen3ForCausalLM", qk_norm=True, num_kv_heads=32, head_size=128, windowed="flag"),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a Hugging Face config belongs to.

    Raises:
        ValueError: listing the supported ones.
    """
    by_architecture = {family.architecture: family for family in _FAMILIES.values()}
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list | tuple) or not all(isinstance(name, str) for name in architectures):
        raise ValueError(f"architectures={architectures!r} must be a list of names; correct the config")
    for architecture in architectures:
        # A base model, e.g. LlamaModel, is the same network saved without its LM head.
        causal = f"{architecture.removesuffix('Model')}ForCausalLM" if architecture.endswith("Model") else architecture
        if causal in by_architecture:
            return by_architecture[causal]
    model_type = config.get("model_type")
    if not architectures and isinstance(model_type, str) and model_type in _FAMILIES:
        return _FAMILIES[model_type]
    found = ", ".join(architectures) or f"model_type={model_type!r}"
    raise ValueError(f"{found} is not a supported architecture; supported are {', '.join(by_architecture)}")
