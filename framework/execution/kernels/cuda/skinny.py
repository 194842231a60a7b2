"""Matrix products of a few rows, fused with the operations before and after them.

Reading the weights is all their cost. With a small batch, a decoder layer consists of many kernels that are too short
to fill the GPU. Here the norm is a prologue, and the gate and the residual addition are epilogues. With several rows
the norm is a separate kernel, because every program would have to repeat it, which costs more than a launch. What a
separate kernel would round is rounded here too (see `decoder`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.activation import gate_rounded
from framework.execution.kernels.cuda.norm import rms_norm
from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous
from framework.execution.kernels.cuda.shared_memory import fit

MAX_ROWS = 16
"""With more rows, the matrix product of a library is faster (experiments/gpu_speed)."""
_ROWS = 16
"""The rows of a tile, whatever the number of rows of the product."""


@triton.jit
def _one_row_kernel(
    out_ptr, x_ptr, weight_ptr, norm_ptr, num_outputs, eps,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_N = output < num_outputs
    column = tl.arange(0, BLOCK_K)  # reads a whole row of weights before the input is there
    mask = mask_N[:, None] & (column < K)[None, :]
    weight_offset = output.to(tl.int64)[:, None] * K + column[None, :]
    weight = tl.load(weight_ptr + weight_offset, mask=mask, other=0.0)
    if GATED:
        weight_up = tl.load(weight_ptr + num_outputs.to(tl.int64) * K + weight_offset, mask=mask, other=0.0)
    if NORM:
        norm = tl.load(norm_ptr + column, mask=column < K, other=0.0).to(tl.float32)
    wait_for_previous(PDL)
    x = tl.load(x_ptr + column, mask=column < K, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.rsqrt(tl.sum(x * x, 0) / K + eps)
        x = (x * scale * norm).to(weight.dtype).to(tl.float32)
    value = tl.sum(weight.to(tl.float32) * x[None, :], 1)
    if GATED:
        value = gate_rounded(value, tl.sum(weight_up.to(tl.float32) * x[None, :], 1), weight.dtype)
    if ADD:
        value += tl.load(out_ptr + output, mask=mask_N, other=0.0).to(tl.float32)
    tl.store(out_ptr + output, value.to(out_ptr.dtype.element_ty), mask=mask_N)


@triton.jit(do_not_specialize=["num_rows"])
def _few_rows_kernel(
    out_ptr, x_ptr, weight_ptr, num_rows, num_outputs,
    K: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GATED: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_N = output < num_outputs
    row = tl.arange(0, ROWS)
    mask_R = row < num_rows
    total = tl.zeros((ROWS, BLOCK_N), tl.float32)
    total_up = tl.zeros((ROWS, BLOCK_N), tl.float32)
    row_ptr = weight_ptr + output.to(tl.int64)[:, None] * K
    wait_for_previous(PDL)
    for start in range(0, K, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        mask_K = (column < K)[None, :]
        weight = tl.load(row_ptr + column[None, :], mask=mask_N[:, None] & mask_K, other=0.0)
        if GATED:
            up_ptr = row_ptr + num_outputs.to(tl.int64) * K + column[None, :]
            weight_up = tl.load(up_ptr, mask=mask_N[:, None] & mask_K, other=0.0)
        x = tl.load(x_ptr + row[:, None] * K + column[None, :], mask=mask_R[:, None] & mask_K, other=0.0)
        total = tl.dot(x, tl.trans(weight), total, input_precision=PRECISION)
        if GATED:
            total_up = tl.dot(x, tl.trans(weight_up), total_up, input_precision=PRECISION)
    value = total
    if GATED:
        value = gate_rounded(value, total_up, weight_ptr.dtype.element_ty)
    out_RN_ptr = out_ptr + row[:, None] * num_outputs + output[None, :]
    mask = mask_R[:, None] & mask_N[None, :]
    if ADD:
        value += tl.load(out_RN_ptr, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_RN_ptr, value.to(out_ptr.dtype.element_ty), mask=mask)


@dataclass(frozen=True, slots=True)
class SkinnyTile:
    """How a product is cut: outputs per program, inputs per iteration, warps and pipeline stages."""

    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def choose_skinny_tile(
    num_rows: int, num_inputs: int, num_outputs: int, gated: bool, dtype: torch.dtype, limit: int | None = None
) -> SkinnyTile:
    """The tile that was fastest on an H200 in 16 bits (experiments/gpu_speed), else the largest that fits.

    The inputs of a single row are held in registers, in one piece.
    """
    whole = triton.next_power_of_2(num_inputs)
    if num_rows == 1:
        if num_outputs >= 16_384:
            return SkinnyTile(max(1, 8192 // whole), whole, 8, 1)
        return SkinnyTile(max(1, (2048 if gated else 4096) // whole), whole, _warps_of_one_row(whole), 1)
    if dtype.itemsize > 2:  # exact products hold the inputs of an iteration in registers
        tile = SkinnyTile(16, min(32, whole), 4, 4)
    elif num_outputs >= 16_384:
        tile = SkinnyTile(32, min(512, whole), 4, 3)
    elif gated:
        tile = SkinnyTile(32, min(256, whole), 2, 5)
    elif num_outputs >= 2048:
        tile = SkinnyTile(32, min(512, whole), 4, 5)
    else:
        tile = SkinnyTile(16, min(512, whole), 2, 5)
    bytes_per_input = (_ROWS + tile.block_n * (2 if gated else 1)) * dtype.itemsize
    block_k, stages = fit(tile.block_k, tile.num_stages, bytes_per_input, limit=limit)
    return replace(tile, block_k=block_k, num_stages=stages)


def _warps_of_one_row(num_inputs: int) -> int:
    """As many warps as are needed to hold a row of weights and a row of inputs in registers."""
    return 2 if num_inputs <= 1024 else 4 if num_inputs <= 8192 else 8 if num_inputs <= 16_384 else 16


def skinny_linear(
    x_RK: Tensor,
    weight_NK: Tensor,
    *,
    norm_K: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    add_to_RN: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    tile: SkinnyTile | None = None,
) -> Tensor:
    """`epilogue(rms_norm(x) W^T)` for at most `MAX_ROWS` rows: [R, K] -> [R, N].

    Args:
        x_RK: of the type of the weight, or of any type with `norm_K`.
        weight_NK: [N, K], or with `gated` [2 N, K] with the rows of the gate first. The result is then
            `silu(gate) * up`.
        norm_K: the weight of the RMSNorm of `x`; None for no norm.
        add_to_RN: the residual stream, of any float type. The product is added to it in place, and it is returned.
        out_dtype: the type of a product that is not added to anything; by default that of the weight.
    """
    num_rows, num_inputs = x_RK.shape
    num_outputs = weight_NK.shape[0] // (2 if gated else 1)
    dtype = weight_NK.dtype
    out_RN = add_to_RN
    if out_RN is None:
        out_RN = torch.empty(num_rows, num_outputs, dtype=out_dtype or dtype, device=x_RK.device)
    tile = tile or choose_skinny_tile(num_rows, num_inputs, num_outputs, gated, dtype)
    if norm_K is not None and num_rows > 1:
        x_RK, norm_K = rms_norm(x_RK, norm_K, eps), None
    launch = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, **launch_options()}
    flags = {"K": num_inputs, "GATED": gated, "ADD": add_to_RN is not None}
    grid = (triton.cdiv(num_outputs, tile.block_n),)
    if num_rows == 1:
        _one_row_kernel[grid](
            out_RN, x_RK, weight_NK, x_RK if norm_K is None else norm_K, num_outputs, eps,
            BLOCK_N=tile.block_n, BLOCK_K=tile.block_k, NORM=norm_K is not None, **flags, **launch,
        )  # fmt: skip
    else:
        _few_rows_kernel[grid](
            out_RN, x_RK, weight_NK, num_rows, num_outputs, ROWS=_ROWS, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k,
            PRECISION="ieee" if dtype == torch.float32 else "tf32", **flags, **launch,
        )  # fmt: skip
    return out_RN
