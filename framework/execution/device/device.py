"""Which device `auto` means here, and what torch calls a type."""

from __future__ import annotations

import torch

from framework.interfaces.errors import IncompatibleError


def resolve_device(name: str) -> torch.device:
    """The device. `auto` is CUDA if there is a CUDA device.

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


def torch_dtype(name: str) -> torch.dtype:
    """The type that torch calls `name`."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
