"""Triton kernels without a GPU: import this before any module that defines one."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np
import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = HAS_TRITON and not torch.cuda.is_available()

if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined
    from triton.runtime import interpreter

    _patch = interpreter._patch_lang_tensor

    def _patch_lang_tensor(tensor: Any, scope: Any) -> None:
        """Triton 3.6 turns one-element arrays into loop bounds by `int(array)`, which numpy 2.4 and newer refuse."""
        _patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))
        scope.set_attr(tensor, "__int__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = _patch_lang_tensor
    _convert = interpreter._convert_float

    def _convert_float(array: Any, from_type: Any, to_type: Any, rounding: Any) -> Any:
        """Triton 3.6 loses the carry when it rounds to e4m3, and subnormal numbers; PyTorch does not."""
        if str(from_type) != "fp32" or str(to_type) != "fp8e4nv":
            return _convert(array, from_type, to_type, rounding)
        wide = torch.from_numpy(np.ascontiguousarray(array).view(np.float32))
        return wide.to(torch.float8_e4m3fn).view(torch.uint8).numpy().reshape(array.shape)

    interpreter._convert_float = _convert_float
