"""The gate of SwiGLU in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous

_BLOCK = 1024


@triton.jit
def gate_rounded(gate, up, dtype: tl.constexpr):
    """`silu(gate) * up` of float32 products. Each is rounded first, as it is where the product is a separate kernel."""
    gate, up = gate.to(dtype).to(tl.float32), up.to(dtype).to(tl.float32)
    return gate / (1.0 + tl.exp(-gate)) * up


@triton.jit
def _silu_and_mul_kernel(out_ptr, gate_up_ptr, size, BLOCK: tl.constexpr, PDL: tl.constexpr):
    let_next_start(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < size
    wait_for_previous(PDL)
    gate = tl.load(gate_up_ptr + row * 2 * size + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * size + size + column, mask=mask, other=0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * size + column, value.to(out_ptr.dtype.element_ty), mask=mask)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of `[gate | up]`: [T, 2 I] -> [T, I]."""
    num_tokens, double = gate_up.shape
    size = double // 2
    out_TI = torch.empty(num_tokens, size, dtype=gate_up.dtype, device=gate_up.device)
    grid = (num_tokens, triton.cdiv(size, _BLOCK))
    _silu_and_mul_kernel[grid](out_TI, gate_up, size, BLOCK=_BLOCK, num_warps=4, **launch_options())
    return out_TI
