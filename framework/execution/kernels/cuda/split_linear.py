"""Matrix products of more rows than `skinny` takes.

Reading the weights is still most of the cost, so every multiprocessor has to read its share of them. A product with few
outputs is therefore cut along its inputs too. It leaves its parts in float32, and the norm that follows adds them in a
fixed order. This needs neither atomics nor a second kernel. With more rows, a library computes the same parts, so that
the result of a row does not depend on the number of rows. Products that add up their inputs from first to last agree to
the bit, both ours and those of cuBLAS (measured on an H200 with 2 to 1,024 rows).
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
from framework.execution.kernels.cuda.shared_memory import HOPPER_BYTES, fit, shared_bytes

MAX_ROWS = 64
"""With more rows, the matrix product of a library is faster (experiments/gpu_speed)."""
_LARGE_WEIGHT = 1 << 24
"""For weights of this many entries or more, a library is faster with more rows than `skinny` takes."""
MIN_ROWS = 64
"""The rows that Hopper's matrix instruction takes. With fewer rows, Triton uses an older and slower instruction."""
PARTS = 4
"""The number of parts into which a product with few outputs is cut along its inputs."""
_PART_UNIT = 16
"""The inputs of a part are a multiple of this, which is what a matrix instruction takes at once."""
PARTS_ROWS = 256
"""With more rows, a library computes the parts faster."""
BATCH_ROWS = 1024
"""With more rows, writing and reading the parts would make a prompt 10 to 20 % slower."""


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
    begin = part * K_PART
    end = tl.minimum(begin + K_PART, K)
    wait_for_previous(PDL)
    for start in range(0, K_PART, BLOCK_K):
        column = (begin + start + tl.arange(0, BLOCK_K))[None, :]
        if EVEN:
            weight = tl.load(weight_row_ptr + column)
            x = tl.load(x_row_ptr + column, mask=mask_R, other=0.0)
        else:
            weight = tl.load(weight_row_ptr + column, mask=mask_N & (column < end), other=0.0)
            x = tl.load(x_row_ptr + column, mask=mask_R & (column < end), other=0.0)
        total = tl.dot(x, tl.trans(weight), total, input_precision=PRECISION)
        if GATED:
            if EVEN:
                weight_up = tl.load(up_row_ptr + column)
            else:
                weight_up = tl.load(up_row_ptr + column, mask=mask_N & (column < end), other=0.0)
            total_up = tl.dot(x, tl.trans(weight_up), total_up, input_precision=PRECISION)
    if GATED:
        total = gate_rounded(total, total_up, weight_ptr.dtype.element_ty)
    out_RN_ptr = out_ptr + (part * num_rows + row)[:, None] * num_outputs + output[None, :]
    tl.store(out_RN_ptr, total.to(out_ptr.dtype.element_ty), mask=mask_R & (output < num_outputs)[None, :])


def max_rows(weight_NK: Tensor) -> int:
    """The largest number of rows for which a product with `weight_NK` is faster here than in a library."""
    if weight_NK.dtype.itemsize > 2:  # no matrix instruction is exact, so a library is faster with two rows or more
        return 1
    return min(MAX_ROWS, max_rows_of_size(weight_NK))


def max_rows_of_size(weight_NK: Tensor) -> int:
    """The largest number of rows that follows from the size of `weight_NK` alone."""
    return skinny.MAX_ROWS if weight_NK.numel() >= _LARGE_WEIGHT else MAX_ROWS


@dataclass(frozen=True, slots=True)
class SplitTile:
    """How a product is cut: rows and outputs per program, inputs per iteration, warps and pipeline stages."""

    rows: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def choose_split_tile(
    num_rows: int, num_inputs: int, gated: bool, dtype: torch.dtype, limit: int | None = None
) -> SplitTile:
    """The tile that was fastest on an H200 in 16 bits (experiments/gpu_speed), else the largest that fits."""
    if dtype.itemsize > 2:  # exact products hold the inputs of an iteration in registers
        tile = SplitTile(MIN_ROWS, 32, 32, 4, 2)
    elif num_rows <= MIN_ROWS:
        tile = SplitTile(MIN_ROWS, 32, 128, 4, 5)
    elif num_rows <= 2 * MIN_ROWS:
        tile = SplitTile(MIN_ROWS, 64, 64, 4, 5)
    else:
        tile = SplitTile(2 * MIN_ROWS, 64, 64, 8, 4)
    return _fitted(tile, num_inputs, 2 if gated else 1, dtype, limit)


def _fitted(tile: SplitTile, num_inputs: int, num_weights: int, dtype: torch.dtype, limit: int | None) -> SplitTile:
    bytes_per_input = (tile.rows + tile.block_n * num_weights) * dtype.itemsize
    longest = min(tile.block_k, triton.next_power_of_2(num_inputs))
    limit = shared_bytes() if limit is None else limit
    # Hopper's matrix instruction still reads the inputs of one iteration while the next are fetched, so one more stage.
    ahead = 1 if limit >= HOPPER_BYTES else 0
    block_k, stages = fit(longest, tile.num_stages + ahead, bytes_per_input, limit=limit)
    return replace(tile, block_k=block_k, num_stages=max(2, stages - ahead))


def part_size(num_inputs: int) -> int:
    """The number of inputs of a part. It depends on nothing else, so that the sums do not either."""
    return triton.cdiv(triton.cdiv(num_inputs, PARTS), _PART_UNIT) * _PART_UNIT


def split_linear(
    x_RK: Tensor, weight_NK: Tensor, *, gated: bool = False, in_parts: bool = False, tile: SplitTile | None = None
) -> Tensor:
    """`x W^T` for dozens or hundreds of rows: [R, K] -> [R, N] in the dtype of `x`.

    Args:
        x_RK: contiguous.
        weight_NK: [N, K], or with `gated` [2 N, K] with the rows of the gate first. The result is then
            `silu(gate) * up`.
        in_parts: the result is [PARTS, R, N] float32 and has to be added up. This is for few outputs before a norm.
    """
    num_rows, num_inputs = x_RK.shape
    num_outputs = weight_NK.shape[0] // (2 if gated else 1)
    tile = tile or choose_split_tile(num_rows, num_inputs, gated, x_RK.dtype)
    assert not gated or not in_parts
    parts = PARTS if in_parts else 1
    shape = (parts, num_rows, num_outputs) if in_parts else (num_rows, num_outputs)
    out = torch.empty(shape, dtype=torch.float32 if in_parts else x_RK.dtype, device=x_RK.device)
    k_part = part_size(num_inputs) if in_parts else triton.cdiv(num_inputs, tile.block_k) * tile.block_k
    even = num_outputs % tile.block_n == 0 and num_inputs == parts * k_part and k_part % tile.block_k == 0
    _split_linear_kernel[(triton.cdiv(num_outputs, tile.block_n), parts, triton.cdiv(num_rows, tile.rows))](
        out, x_RK, weight_NK, num_rows, num_outputs,
        K=num_inputs, K_PART=k_part, ROWS=tile.rows, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k,
        EVEN=even, GATED=gated, PRECISION="ieee" if x_RK.dtype == torch.float32 else "tf32",
        num_warps=tile.num_warps, num_stages=tile.num_stages, **launch_options(),
    )  # fmt: skip
    return out


def add_product(x_RK: Tensor, weight_NK: Tensor) -> Tensor:
    """`x W^T`, which the norm adds to the residual: [PARTS, R, N] float32, or [R, N] float32 with very many rows.

    With up to `BATCH_ROWS` rows, no bit of the result of a row depends on the number of rows.
    """
    num_rows, num_inputs = x_RK.shape
    size = part_size(num_inputs)
    if num_rows <= PARTS_ROWS or (num_rows <= BATCH_ROWS and num_inputs != PARTS * size):
        return split_linear(x_RK, weight_NK, in_parts=True)
    if num_rows <= BATCH_ROWS:
        x_PRK, weight_PKN = x_RK.unflatten(1, (PARTS, size)).transpose(0, 1), weight_NK.unflatten(1, (PARTS, size))
        return product_in_float32(x_PRK, weight_PKN.permute(1, 2, 0))
    return product_in_float32(x_RK, weight_NK.t())


def product_in_float32(x: Tensor, y: Tensor) -> Tensor:
    """`x y` of the library, for two matrices or for batches of them. The float32 sums are not rounded."""
    if x.dtype == torch.float32:
        return x @ y
    if not x.is_cuda:  # for tests: PyTorch has no such product on a CPU
        return x.float() @ y.float()
    return (torch.mm if x.dim() == 2 else torch.bmm)(x, y, out_dtype=torch.float32)
