"""Matrix products with weights that are packed once for the CPU of this machine.

The C++ kernel reads each weight once for all rows. So a decode step takes about as long as reading the weights, until
there are so many rows that the arithmetic takes longer (about 30 rows in fp32 on two AVX2 cores). Not one bit of a
row's result depends on the other rows. bf16 weights are widened in registers, and sums are fp32. Activations may be
fp32 or bf16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from framework.execution.kernels.cpu import native


def linear_kernel_name(dtype: torch.dtype) -> str:
    """The kernel that `pack_linear` chooses for weights of `dtype` on this machine: `native`, `onednn` or `torch`.

    The choice follows from a rule and not from a measurement, so that two runs on one machine agree.
    """
    if dtype == torch.bfloat16 and _has_bf16_instructions():
        return "onednn"
    if dtype in native.SUPPORTED_DTYPES and native.unavailable_reason() is None:
        return "native"
    return "onednn" if dtype == torch.float32 and torch.backends.mkldnn.is_available() else "torch"


def pack_linear(weight_OI: Tensor, bias_O: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A function from x [T, I] to [T, O] in the dtype of x. It holds its own copy of the weight.

    Raises:
        ValueError: the weight is not a matrix on the CPU.
    """
    if weight_OI.ndim != 2 or weight_OI.device.type != "cpu":
        raise ValueError(
            f"weight of shape {tuple(weight_OI.shape)} on {weight_OI.device} cannot be packed; pass a matrix on the CPU"
        )
    kinds: dict[str, type[NativeLinear | OneDNNLinear | TorchLinear]] = {
        "native": NativeLinear,
        "onednn": OneDNNLinear,
        "torch": TorchLinear,
    }
    return kinds[linear_kernel_name(weight_OI.dtype)](weight_OI.detach(), bias_O)


class NativeLinear:
    """The C++ kernel with a packed weight. The kernel is in src/gemm.cpp."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        library = native.library()
        self._out_features, self._in_features = weight_OI.shape
        self._dtype = native.dtype_code(weight_OI.dtype)
        self._bias_O = None if bias_O is None else bias_O.detach().float().contiguous()
        self._bias_pointer = None if self._bias_O is None else self._bias_O.data_ptr()
        weight_OI = weight_OI if weight_OI.stride(1) == 1 else weight_OI.contiguous()
        shape = (self._out_features, self._in_features)
        self._packed = torch.empty(library.servelab_packed_elements(*shape, self._dtype), dtype=weight_OI.dtype)
        self._pointer = self._packed.data_ptr()
        library.servelab_pack_weight(
            weight_OI.data_ptr(), weight_OI.stride(0), self._dtype, self._pointer, *shape, torch.get_num_threads()
        )
        self._function = library.servelab_linear

    def __call__(self, x_TI: Tensor) -> Tensor:
        if x_TI.ndim != 2 or x_TI.shape[1] != self._in_features or x_TI.dtype not in native.SUPPORTED_DTYPES:
            raise ValueError(
                f"input of shape {tuple(x_TI.shape)} and {x_TI.dtype} does not fit a packed weight; "
                f"pass [T, {self._in_features}] in float32 or bfloat16"
            )
        if x_TI.stride(1) != 1:
            x_TI = x_TI.contiguous()
        num_tokens = x_TI.shape[0]
        out_TO = x_TI.new_empty((num_tokens, self._out_features))
        self._function(
            x_TI.data_ptr(),
            x_TI.stride(0),
            native.dtype_code(x_TI.dtype),
            self._pointer,
            self._dtype,
            self._bias_pointer,
            out_TO.data_ptr(),
            self._out_features,
            num_tokens,
            self._in_features,
            self._out_features,
            torch.get_num_threads(),
        )
        return out_TO


class OneDNNLinear:
    """oneDNN with a weight in the layout that it prefers, as PyTorch's compiler uses it. This needs no C++ compiler."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self._bias_O = None if bias_O is None else bias_O.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), None)

    def __call__(self, x_TI: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x_TI, self._packed, self._bias_O, "none", [], "")


class TorchLinear:
    """`F.linear`, for dtypes that neither of the other two supports."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self._weight_OI, self._bias_O = weight_OI, bias_O

    def __call__(self, x_TI: Tensor) -> Tensor:
        return F.linear(x_TI, self._weight_OI, self._bias_O)


def _has_bf16_instructions() -> bool:
    """Whether oneDNN multiplies bf16 in hardware here (AVX-512 BF16 or AMX). It is then the fastest choice."""
    cpu = torch.cpu
    return torch.backends.mkldnn.is_available() and (cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
