"""The values that every family's `config.json` has, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.models.layers.config_values import integer

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
"""The names that `transformers` has for the functions of `layers/activation.py`. Some are two names of one function."""


def token_ids(values: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """A config's `eos_token_id`, which may be one id, several or none.

    Raises:
        ValueError: naming the key and its value.
    """
    value = values.get(key)
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in items):
        raise ValueError(f"{key}={value!r} must be a token id (an integer of at least 0), a list of them, or null")
    return tuple(items)


def check_not_quantised(values: Mapping[str, Any]) -> None:
    """Refuse a config that says that the weights are quantised, naming the method."""
    # "quantization" is MLX's key; a text in either one names the method.
    for key in ("quantization_config", "quantization"):
        if settings := values.get(key):
            method = settings.get("quant_method", "unknown") if isinstance(settings, Mapping) else settings
            method = "mlx" if key == "quantization" and method == "unknown" else method
            raise ValueError(f"weights quantised with {method!r} are not supported; use the unquantised checkpoint")


def activation(values: Mapping[str, Any], key: str = "hidden_act") -> str:
    """The function of the feed-forward gate: "silu", "gelu", "gelu_tanh" or "relu"."""
    name = values.get(key, "silu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"{key}={name!r} is not supported; supported are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def num_kv_heads(values: Mapping[str, Any], num_heads: int) -> int:
    """As `transformers`: null means as many as query heads."""
    number = integer(values, "num_key_value_heads", num_heads)
    if num_heads % number:
        raise ValueError(
            f"num_attention_heads={num_heads} must be a multiple of num_key_value_heads={number}; correct the config"
        )
    return number


def head_size(values: Mapping[str, Any], hidden_size: int, num_heads: int) -> int:
    """`head_dim`, or a share of the hidden size; even."""
    size = integer(values, "head_dim", max(1, hidden_size // num_heads))
    if size % 2:
        raise ValueError(f"head_dim={size} must be even, since rotary positions turn pairs; correct the config")
    return size


def dtype_name(values: Mapping[str, Any]) -> str | None:
    """The type of the checkpoint, such as "bfloat16"."""
    dtype = values.get("dtype") or values.get("torch_dtype")
    return None if dtype is None else str(dtype).removeprefix("torch.")
