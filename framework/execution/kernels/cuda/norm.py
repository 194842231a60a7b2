"""RMSNorm, alone or fused with the residual addition. It reads and writes the residual stream once.

The stream may be float32, so that the sums over the layers are not rounded. The output has the type of the weight.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous


@triton.jit
def _rms_norm_kernel(
    out_ptr,
    x_ptr,
    residual_ptr,
    weight_ptr,
    size,
    eps,
    part_stride,
    ADD: tl.constexpr,
    PARTS: tl.constexpr,
    SIZE_PAD: tl.constexpr,
    PDL: tl.constexpr,
):
    let_next_start(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, SIZE_PAD)
    mask = column < size
    weight = tl.load(weight_ptr + column, mask=mask, other=0.0).to(tl.float32)
    wait_for_previous(PDL)
    x = tl.load(x_ptr + row * size + column, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual_ptr + row * size + column, mask=mask, other=0.0).to(tl.float32)
        for part in tl.static_range(1, PARTS):
            x += tl.load(x_ptr + part * part_stride + row * size + column, mask=mask, other=0.0)
        stored = x.to(residual_ptr.dtype.element_ty)
        tl.store(residual_ptr + row * size + column, stored, mask=mask)
        x = stored.to(tl.float32)  # the value that the next layer reads
    scale = tl.rsqrt(tl.sum(x * x, 0) / size + eps)
    tl.store(out_ptr + row * size + column, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=mask)


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float, residual_TD: Tensor | None = None) -> Tensor:
    """[T, D] -> [T, D] in the type of the weight.

    If there is `residual_TD`, `x` is added to it in place, and the sum is normalised. Sums are computed in float32. `x`
    and the residual may have any float type. `x` may also be the float32 parts [P, T, D] of a product, which are added
    one after the other. Parts need a residual.
    """
    *parts, num_tokens, size = x_TD.shape
    out_TD = torch.empty(num_tokens, size, dtype=weight_D.dtype, device=x_TD.device)
    size_pad = triton.next_power_of_2(size)
    _rms_norm_kernel[(num_tokens,)](
        out_TD,
        x_TD,
        x_TD if residual_TD is None else residual_TD,
        weight_D,
        size,
        eps,
        num_tokens * size,
        ADD=residual_TD is not None,
        PARTS=parts[0] if parts else 1,
        SIZE_PAD=size_pad,
        num_warps=min(8, max(1, size_pad // 256)),
        **launch_options(),
    )
    return out_TD
