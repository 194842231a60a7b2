"""Matrix products of more rows than `skinny` takes.

Reading the weights is still most of the cost, so every multiprocessor has to read its share of them. A product with few
outputs is therefore cut along its inputs too, and leaves its parts in float32 to the norm that follows, which adds them
in a fixed order: no atomics, no second kernel. Where there are so many rows that a part is much to write, one program
takes all parts, one after the other, in the same order: the result does not depend on the number of rows.
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
PARTS = 4
"""Into which a product with few outputs is cut along its inputs"""
_PART_UNIT = 128
"""What a part's inputs are a multiple of: an iteration of any tile divides it"""
PARTS_ROWS = 512
"""Above it parts would be more to write and read than they save: a program adds them up itself"""


@triton.jit(do_not_specialize=["num_rows"])
def _split_linear_kernel(
    out_ptr, x_ptr, weight_ptr, num_rows, num_outputs,
    K: tl.constexpr, K_PART: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr, GATED: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
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


@triton.jit(do_not_specialize=["num_rows"])
def _add_parts_kernel(
    residual_ptr, x_ptr, weight_ptr, num_rows, num_outputs,
    K: tl.constexpr, K_PART: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    mask_R = (row < num_rows)[:, None]
    mask_N = (output < num_outputs)[:, None]
    x_row_ptr = x_ptr + row.to(tl.int64)[:, None] * K
    weight_row_ptr = weight_ptr + output.to(tl.int64)[:, None] * K
    total = tl.zeros((ROWS, BLOCK_N), tl.float32)
    wait_for_previous(PDL)
    for part in range(PARTS):
        of_part = tl.zeros((ROWS, BLOCK_N), tl.float32)
        for start in range(part * K_PART, (part + 1) * K_PART, BLOCK_K):
            column = (start + tl.arange(0, BLOCK_K))[None, :]
            if EVEN:
                weight = tl.load(weight_row_ptr + column)
                x = tl.load(x_row_ptr + column, mask=mask_R, other=0.0)
            else:
                weight = tl.load(weight_row_ptr + column, mask=mask_N & (column < K), other=0.0)
                x = tl.load(x_row_ptr + column, mask=mask_R & (column < K), other=0.0)
            of_part = tl.dot(x, tl.trans(weight), of_part, input_precision=PRECISION)
        total += of_part
    residual_RN_ptr = residual_ptr + row.to(tl.int64)[:, None] * num_outputs + output[None, :]
    mask = mask_R & (output < num_outputs)[None, :]
    total += tl.load(residual_RN_ptr, mask=mask, other=0.0)
    tl.store(residual_RN_ptr, total, mask=mask)


def max_rows(weight_NK: Tensor) -> int:
    """Up to so many rows a product with `weight_NK` is faster here than a library's."""
    if weight_NK.dtype.itemsize > 2:  # no matrix instruction is exact: a library is faster with all but one row
        return 1
    return min(MAX_ROWS, max_rows_of_size(weight_NK))


def max_rows_of_size(weight_NK: Tensor) -> int:
    """The limit of `weight_NK`'s size alone."""
    return skinny.MAX_ROWS if weight_NK.numel() >= _LARGE_WEIGHT else MAX_ROWS


@dataclass(frozen=True, slots=True)
class SplitTile:
    """How a product is cut: rows and outputs a program, inputs an iteration, warps, pipeline stages."""

    rows: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def choose_tile(
    num_rows: int, num_inputs: int, gated: bool, dtype: torch.dtype, shared_bytes: int | None = None
) -> SplitTile:
    """By measurement on an H200 in 16 bits, see experiments/gpu_speed; for others as much as fits on chip."""
    if dtype.itemsize > 2:  # exact products keep an iteration's inputs in registers
        tile = SplitTile(MIN_ROWS, 32, 32, 4, 2)
    elif num_rows <= MIN_ROWS:
        tile = SplitTile(MIN_ROWS, 32, 128, 4, 5)
    elif num_rows <= 2 * MIN_ROWS:
        tile = SplitTile(2 * MIN_ROWS, 32, 128, 8, 4)
    else:
        tile = SplitTile(2 * MIN_ROWS, 64, 64, 8, 4)
    return _fitted(tile, num_inputs, 2 if gated else 1, dtype, shared_bytes)


def choose_large_tile(num_inputs: int, dtype: torch.dtype, shared_bytes: int | None = None) -> SplitTile:
    """Of `add_in_parts`."""
    return _fitted(SplitTile(128, 128, 64, 8, 4), num_inputs, 1, dtype, shared_bytes)


def _fitted(
    tile: SplitTile, num_inputs: int, num_weights: int, dtype: torch.dtype, shared_bytes: int | None
) -> SplitTile:
    bytes_per_input = (tile.rows + tile.block_n * num_weights) * dtype.itemsize
    # Hopper's matrix instruction still reads an iteration's inputs while the next ones' take their place: one more.
    longest = min(tile.block_k, triton.next_power_of_2(num_inputs))
    block_k, stages = fit(longest, tile.num_stages + 1, bytes_per_input, limit=shared_bytes)
    return replace(tile, block_k=block_k, num_stages=max(2, stages - 1))


def part_size(num_inputs: int) -> int:
    """Inputs of a part: they depend on nothing else, so that the sums do not."""
    unit = min(_PART_UNIT, triton.next_power_of_2(num_inputs))
    return triton.cdiv(triton.cdiv(num_inputs, PARTS), unit) * unit


def split_linear(
    x_RK: Tensor, weight_NK: Tensor, *, gated: bool = False, in_parts: bool = False, tile: SplitTile | None = None
) -> Tensor:
    """`x W^T` of dozens or hundreds of rows: [R, K] -> [R, N] in the dtype of `x`.

    Args:
        x_RK: contiguous.
        weight_NK: [N, K], or with `gated` [2 N, K], the gate's rows first; the result is then `silu(gate) * up`.
        in_parts: the result is [PARTS, R, N] float32, to be added up: for few outputs, behind which comes a norm.
    """
    num_rows, num_inputs = x_RK.shape
    num_outputs = weight_NK.shape[0] // (2 if gated else 1)
    tile = tile or choose_tile(num_rows, num_inputs, gated, x_RK.dtype)
    assert not gated or not in_parts
    parts = PARTS if in_parts else 1
    shape = (parts, num_rows, num_outputs) if in_parts else (num_rows, num_outputs)
    out = torch.empty(shape, dtype=torch.float32 if in_parts else x_RK.dtype, device=x_RK.device)
    k_part = part_size(num_inputs) if in_parts else triton.cdiv(num_inputs, tile.block_k) * tile.block_k
    _split_linear_kernel[(triton.cdiv(num_outputs, tile.block_n), parts, triton.cdiv(num_rows, tile.rows))](
        out, x_RK, weight_NK, num_rows, num_outputs,
        K=num_inputs, K_PART=k_part, ROWS=tile.rows, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k,
        EVEN=num_outputs % tile.block_n == 0 and num_inputs == parts * k_part, GATED=gated,
        PRECISION="ieee" if x_RK.dtype == torch.float32 else "tf32", num_warps=tile.num_warps,
        num_stages=tile.num_stages, **launch_options(),
    )  # fmt: skip
    return out


def add_in_parts(x_RK: Tensor, weight_NK: Tensor, residual_RN: Tensor, *, tile: SplitTile | None = None) -> None:
    """Add `x W^T` to the float32 residual in place, for many rows; bit for bit what `split_linear`'s parts come to."""
    num_rows, num_inputs = x_RK.shape
    num_outputs = weight_NK.shape[0]
    tile = tile or choose_large_tile(num_inputs, x_RK.dtype)
    k_part = part_size(num_inputs)
    _add_parts_kernel[(triton.cdiv(num_outputs, tile.block_n), triton.cdiv(num_rows, tile.rows))](
        residual_RN, x_RK, weight_NK, num_rows, num_outputs,
        K=num_inputs, K_PART=k_part, PARTS=PARTS, ROWS=tile.rows, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k,
        EVEN=num_outputs % tile.block_n == 0 and num_inputs == PARTS * k_part,
        PRECISION="ieee" if x_RK.dtype == torch.float32 else "tf32", num_warps=tile.num_warps,
        num_stages=tile.num_stages, **launch_options(),
    )  # fmt: skip
