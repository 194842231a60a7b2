"""The operations between matrix products, in one pass each. The kernels are in src/elementwise.cpp.

Inputs and outputs are float32 or bfloat16, and the arithmetic is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framework.execution.kernels.cpu import native


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float, residual_TD: Tensor | None = None) -> Tensor:
    """`x / rms(x) * weight`. If there is a `residual`, x is added to it in place first, and the sum is normalised."""
    x_TD = x_TD.contiguous()
    assert residual_TD is None or (residual_TD.is_contiguous() and residual_TD.shape == x_TD.shape)
    out_TD = torch.empty_like(x_TD)
    native.library().servelab_rms_norm(
        x_TD.data_ptr(),
        None if residual_TD is None else residual_TD.data_ptr(),
        weight_D.data_ptr(),
        out_TD.data_ptr(),
        native.dtype_code(x_TD.dtype),
        *x_TD.shape,
        eps,
        torch.get_num_threads(),
    )
    return out_TD


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`: [T, 2 I] = [gate | up] -> [T, I]."""
    gate_up = gate_up.contiguous()
    num_tokens, width = gate_up.shape
    out = gate_up.new_empty((num_tokens, width // 2))
    native.library().servelab_silu_and_mul(
        gate_up.data_ptr(),
        out.data_ptr(),
        native.dtype_code(gate_up.dtype),
        num_tokens,
        width // 2,
        torch.get_num_threads(),
    )
    return out


def rotate_(qk_TNH: Tensor, cos_TH: Tensor, signed_sin_TH: Tensor) -> Tensor:
    """`x cos + roll(x, H/2) signed_sin` for every head, in place. The heads of one token are adjacent in memory."""
    num_tokens, num_heads, head_size = qk_TNH.shape
    assert qk_TNH.stride()[1:] == (head_size, 1)
    assert cos_TH.is_contiguous()
    assert signed_sin_TH.is_contiguous()
    native.library().servelab_rotate(
        qk_TNH.data_ptr(),
        qk_TNH.stride(0),
        cos_TH.data_ptr(),
        signed_sin_TH.data_ptr(),
        native.dtype_code(qk_TNH.dtype),
        num_tokens,
        num_heads,
        head_size,
        torch.get_num_threads(),
    )
    return qk_TNH
