"""Which device and dtype `auto` means here."""

from __future__ import annotations

import torch

from framework.interfaces.errors import IncompatibleError


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        IncompatibleError: CUDA was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise IncompatibleError("executor.device=cuda: torch sees no CUDA device here; set executor.device=cpu")
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device, checkpoint_dtype: str | None) -> torch.dtype:
    """`auto` is float32 on a CPU, where it is the fast and exact choice, and the checkpoint's half type on a GPU."""
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        name = checkpoint_dtype if checkpoint_dtype in ("bfloat16", "float16") else "bfloat16"
    dtype = torch.float8_e4m3fn if name == "fp8" else getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
