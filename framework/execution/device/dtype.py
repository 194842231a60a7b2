"""Which types `executor.dtype` and `executor.kv_dtype` mean, on a real device or a simulated one, by torch's names."""

from __future__ import annotations


def choose_kv_dtype(asked: str, dtype: str) -> str:
    """The type of the KV cache: `asked` is `executor.kv_dtype`, and `dtype` that of the activations."""
    return {"auto": dtype, "fp8": "float8_e4m3fn"}.get(asked, asked)


def choose_dtype(asked: str, device_type: str, weights_dtype: str | None) -> tuple[str, str]:
    """The type and the reason for it.

    Args:
        asked: `executor.dtype`.
        device_type: `cpu` or `cuda`.
        weights_dtype: the type that the weights were published in, or `GGUF`; None if it is not known.
    """
    if asked != "auto":
        return asked, f"executor.dtype={asked}"
    if device_type == "cpu":
        return "float32", "exact, and a CPU's fastest type"
    if weights_dtype is None:
        return "bfloat16", "the model's config names no type, and bfloat16 has float32's range"
    if weights_dtype == "bfloat16":
        return "bfloat16", "the type of the weights"
    return "float16", (
        f"the weights are {weights_dtype}, not bfloat16, and float16 keeps three more bits than bfloat16 would; "
        f"set executor.dtype=bfloat16 if activations exceed float16's largest number, 65504"
    )
