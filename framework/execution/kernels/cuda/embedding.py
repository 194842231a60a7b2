"""Rows of the embedding table in float32, with which the residual stream begins."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous


@triton.jit
def _embed_kernel(out_ptr, token_ptr, weight_ptr, size, SIZE_PAD: tl.constexpr, PDL: tl.constexpr):
    let_next_start(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, SIZE_PAD)
    mask = column < size
    wait_for_previous(PDL)
    token = tl.load(token_ptr + row).to(tl.int64)
    value = tl.load(weight_ptr + token * size + column, mask=mask, other=0.0)
    tl.store(out_ptr + row * size + column, value.to(tl.float32), mask=mask)


def embed(token_ids_T: Tensor, weight_VD: Tensor) -> Tensor:
    """[T] ids of any integer type -> [T, D] float32. All ids must be in the table."""
    size = weight_VD.shape[1]
    out_TD = torch.empty(len(token_ids_T), size, dtype=torch.float32, device=weight_VD.device)
    size_pad = triton.next_power_of_2(size)
    _embed_kernel[(len(token_ids_T),)](
        out_TD,
        token_ids_T,
        weight_VD,
        size,
        SIZE_PAD=size_pad,
        num_warps=min(8, max(1, size_pad // 256)),
        **launch_options(),
    )
    return out_TD
