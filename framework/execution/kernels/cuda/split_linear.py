"""Matrix products of some dozens of rows: too many for `skinny`, too few to be a library's best case.

Reading the weights is still most of the cost, so every multiprocessor has to read its share of them. A product with few
outputs is therefore cut along its inputs too, and leaves its parts in float32 to the norm that follows, which adds them
in a fixed order: no atomics, no second kernel, the same result every time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda import skinny
from framework.execution.kernels.cuda.activation import gate_rounded
from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous
from framework.execution.kernels.cuda.shared_memory import fit

MAX_ROWS = 128
"""Above it a library's matrix product is faster; see experiments/gpu_speed."""
_LARGE_WEIGHT = 1 << 24
"""Entries of a weight from which on a library is faster with more rows than `skinny` takes"""
MIN_ROWS = 64
"""What Hopper's matrix instruction takes; with fewer, Triton falls back to an older one, which is slower"""


@triton.jit(do_not_specialize=["num_rows"])
def _split_linear_kernel(
    out_ptr, x_ptr, weight_ptr, num_rows, num_outputs,
    K: tl.constexpr, K_PART: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr, GATED: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1)
    row = tl.arange(0, ROWS)
    mask_R = (row < num_rows)[:, None]
    mask_N = (output < num_outputs)[:, None]
    x_row_ptr = x_ptr + row[:, None] * K
    weight_row_ptr = weight_ptr + output.to(tl.int64)[:, None] * K
    up_row_ptr = weight_row_ptr + num_outputs.to(tl.int64) * K
    total = tl.zeros((ROWS, BLOCK_N), tl.float32)
    total_up = tl.zeros((ROWS, BLOCK_N), tl.float32)
    wait_for_previous(PDL)
    for start in range(part * K_PART, (part + 1) * K_PART, BLOCK_K):
        column = (start + tl.arange(0, BLOCK_K))[None, :]
        if EVEN:
            weight = tl.load(weight_row_ptr + column)
            x = tl.load(x_row_ptr + column, mask=mask_R, other=0.0)
        else:
            weight = tl.load(weight_row_ptr + column, mask=mask_N & (column < K), other=0.0)
            x = tl.load(x_row_ptr + column, mask=mask_R & (column < K), other=0.0)
        total = tl.dot(x, tl.trans(weight), total, input_precision=PRECISION)
        if GATED:
            if EVEN:
                weight_up = tl.load(up_row_ptr + column)
            else:
                weight_up = tl.load(up_row_ptr + column, mask=mask_N & (column < K), other=0.0)
            total_up = tl.dot(x, tl.trans(weight_up), total_up, input_precision=PRECISION)
    if GATED:
        total = gate_rounded(total, total_up, weight_ptr.dtype.element_ty)
    out_RN_ptr = out_ptr + (part * num_rows + row)[:, None] * num_outputs + output[None, :]
    tl.store(out_RN_ptr, total.to(out_ptr.dtype.element_ty), mask=mask_R & (output < num_outputs)[None, :])


def max_rows(weight_NK: Tensor) -> int:
    """Up to so many rows a product with `weight_NK` is faster here than a library's."""
    return min(MAX_ROWS, skinny.MAX_ROWS) if weight_NK.numel() >= _LARGE_WEIGHT else MAX_ROWS


@dataclass(frozen=True, slots=True)
class SplitTile:
    """How a product is cut: outputs a program, inputs an iteration, parts of the inputs, warps, pipeline stages."""

    block_n: int
    block_k: int
    num_parts: int
    num_warps: int
    num_stages: int


def choose_tile(
    num_rows: int,
    num_inputs: int,
    in_parts: bool,
    gated: bool,
    dtype: torch.dtype,
    shared_bytes: int | None = None,
) -> SplitTile:
    """By measurement on an H200 in 16 bits, see experiments/gpu_speed; for others as much as fits on chip."""
    parts = 4 if in_parts else 1
    if dtype.itemsize > 2:  # exact products keep an iteration's inputs in registers
        tile = SplitTile(32, 32, parts, 4, 2)
    else:
        warps, stages = (4, 5) if num_rows <= MIN_ROWS else (8, 4)
        tile = SplitTile(32, min(128, triton.next_power_of_2(num_inputs)), parts, warps, stages)
    bytes_per_input = (padded_rows(num_rows) + tile.block_n * (2 if gated else 1)) * dtype.itemsize
    # Hopper's matrix instruction still reads an iteration's inputs while the next ones' take their place: one more.
    block_k, stages = fit(tile.block_k, tile.num_stages + 1, bytes_per_input, limit=shared_bytes)
    return replace(tile, block_k=block_k, num_stages=max(2, stages - 1))


def padded_rows(num_rows: int) -> int:
    """Rows of a tile that holds all of them."""
    return max(MIN_ROWS, triton.next_power_of_2(num_rows))


def split_linear(
    x_RK: Tensor,
    weight_NK: Tensor,
    *,
    gated: bool = False,
    in_parts: bool = False,
    tile: SplitTile | None = None,
) -> Tensor:
    """`x W^T` for at most `MAX_ROWS` rows: [R, K] -> [R, N] in the dtype of `x`.

    Args:
        x_RK: contiguous.
        weight_NK: [N, K], or with `gated` [2 N, K], the gate's rows first; the result is then `silu(gate) * up`.
        in_parts: the result is [P, R, N] float32, to be added up: for few outputs, behind which comes a norm.
    """
    num_rows, num_inputs = x_RK.shape
    num_outputs = weight_NK.shape[0] // (2 if gated else 1)
    tile = tile or choose_tile(num_rows, num_inputs, in_parts, gated, x_RK.dtype)
    assert not gated or not in_parts
    assert in_parts or tile.num_parts == 1
    parts = tile.num_parts
    shape = (parts, num_rows, num_outputs) if in_parts else (num_rows, num_outputs)
    out = torch.empty(shape, dtype=torch.float32 if in_parts else x_RK.dtype, device=x_RK.device)
    k_part = triton.cdiv(triton.cdiv(num_inputs, parts), tile.block_k) * tile.block_k
    _split_linear_kernel[(triton.cdiv(num_outputs, tile.block_n), parts)](
        out, x_RK, weight_NK, num_rows, num_outputs,
        K=num_inputs, K_PART=k_part, ROWS=padded_rows(num_rows), BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k, EVEN=num_outputs % tile.block_n == 0 and num_inputs == parts * k_part, GATED=gated,
        PRECISION="ieee" if x_RK.dtype == torch.float32 else "tf32", num_warps=tile.num_warps,
        num_stages=tile.num_stages, **launch_options(),
    )  # fmt: skip
    return out
