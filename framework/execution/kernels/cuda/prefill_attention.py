"""Causal attention of prefill chunks against the paged cache, after FlashAttention-2 (Dao 2023, arXiv 2307.08691).

The chunk's own keys and values are in the cache already, so a prefix hit, a resumed request and a fresh prompt are one
case. A tile is some of one row's new tokens with all query heads of one KV head, which read the same keys.
`plan_prefill` numbers the tiles of all rows on the device, and each program takes every n-th of them: the grid says
nothing of the rows, so a captured graph replays it for others.

Shape letters: R rows, Q tiles, N query heads, M KV heads, H head size, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.fp8 import query_for_cache
from framework.execution.kernels.cuda.interpreter import interpreted

_PLAN_COLUMNS = 128
_FEW_ROWS = 16


@triton.jit
def _attend_tiles(
    q, total, weight_sum, best, begin, end, seq_len, query_position, table_ptr, k_cache_ptr, v_cache_ptr, scale_log2,
    stride_block, stride_offset,
    HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, HEAD_PAD)
    for start in range(begin, end, TILE):
        position = start + tl.arange(0, TILE)
        if BLOCK_SIZE % TILE == 0:
            block = tl.load(table_ptr + start // BLOCK_SIZE).to(tl.int64)
            at = block * stride_block + (position % BLOCK_SIZE) * stride_offset
        else:
            block = tl.load(table_ptr + position // BLOCK_SIZE, mask=position < seq_len, other=0).to(tl.int64)
            at = block * stride_block + (position % BLOCK_SIZE) * stride_offset
        if MASKED:
            mask = (position < seq_len)[:, None] & (column < HEAD_SIZE)[None, :]
            k = tl.load(k_cache_ptr + at[:, None] + column[None, :], mask=mask, other=0.0).to(q.dtype)
            v = tl.load(v_cache_ptr + at[:, None] + column[None, :], mask=mask, other=0.0).to(q.dtype)
        elif HEAD_SIZE == HEAD_PAD:
            k = tl.load(k_cache_ptr + at[:, None] + column[None, :]).to(q.dtype)
            v = tl.load(v_cache_ptr + at[:, None] + column[None, :]).to(q.dtype)
        else:
            k = tl.load(k_cache_ptr + at[:, None] + column[None, :], mask=(column < HEAD_SIZE)[None, :], other=0.0)
            v = tl.load(v_cache_ptr + at[:, None] + column[None, :], mask=(column < HEAD_SIZE)[None, :], other=0.0)
            k, v = k.to(q.dtype), v.to(q.dtype)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
        if MASKED:
            score = tl.where(position[None, :] <= query_position[:, None], score, -float("inf"))
        new_best = tl.maximum(best, tl.max(score, 1))
        weight = tl.exp2(score - new_best[:, None])
        shrink = tl.exp2(best - new_best)
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
        best = new_best
    return total, weight_sum, best


@triton.jit(do_not_specialize=["num_rows"])
def _plan_kernel(
    tile_start_ptr, tile_row_ptr, num_new_ptr, num_rows,
    GROUP: tl.constexpr, TILE_Q: tl.constexpr, ROWS_PAD: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    this_row = tl.program_id(0)
    row = tl.arange(0, ROWS_PAD)
    tiles = (tl.load(num_new_ptr + row, mask=row < num_rows, other=0) * GROUP + TILE_Q - 1) // TILE_Q
    start = tl.sum(tl.where(row < this_row, tiles, 0), 0)
    end = tl.sum(tl.where(row <= this_row, tiles, 0), 0)
    tl.store(tile_start_ptr + this_row, start)
    tl.store(tile_start_ptr + this_row + 1, end)  # what the next row's program says too
    for first in range(start, end, COLUMNS):
        tile = first + tl.arange(0, COLUMNS)
        tl.store(tile_row_ptr + tile, tl.zeros((COLUMNS,), tl.int32) + this_row, mask=tile < end)


# A slice of a step's rows begins anywhere and a block table has any width: one kernel for all of them, or a run stops
# for a second whenever it meets a new case.
@triton.jit(
    do_not_specialize=["num_rows", "stride_table"],
    do_not_specialize_on_alignment=["table_ptr", "query_start_ptr", "seq_len_ptr"],
)
def _prefill_kernel(
    out_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, query_start_ptr, seq_len_ptr, tile_start_ptr, tile_row_ptr,
    scale_log2, num_rows,
    stride_q_token, stride_q_head, stride_out_token, stride_table, stride_block, stride_offset, stride_head,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    TILE_Q: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    num_tiles = tl.load(tile_start_ptr + num_rows)
    for number in range(tl.program_id(0), num_tiles, tl.num_programs(0)):
        row = tl.load(tile_row_ptr + number)
        tile = tl.load(tile_start_ptr + row + 1) - 1 - number  # long tiles first: a row's last tokens see the most keys
        _attend_row(
            out_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, query_start_ptr, seq_len_ptr, row, tile, scale_log2,
            stride_q_token, stride_q_head, stride_out_token, stride_table, stride_block, stride_offset, stride_head,
            GROUP, HEAD_SIZE, HEAD_PAD, BLOCK_SIZE, TILE_Q, TILE, PRECISION,
        )  # fmt: skip


@triton.jit
def _attend_row(
    out_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, query_start_ptr, seq_len_ptr, row, tile, scale_log2,
    stride_q_token, stride_q_head, stride_out_token, stride_table, stride_block, stride_offset, stride_head,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    TILE_Q: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    kv_head = tl.program_id(1)
    first = tl.load(query_start_ptr + row)
    num_new = tl.load(query_start_ptr + row + 1) - first
    seq_len = tl.load(seq_len_ptr + row)
    num_before = seq_len - num_new
    packed = tile * TILE_Q + tl.arange(0, TILE_Q)  # token by token, the heads of the group one after the other
    index = packed // GROUP
    head = kv_head * GROUP + packed % GROUP
    query_position = num_before + index
    column = tl.arange(0, HEAD_PAD)
    mask = (index < num_new)[:, None] & (column < HEAD_SIZE)[None, :]
    token = (first + index).to(tl.int64)[:, None]
    q_offset = token * stride_q_token + head[:, None] * stride_q_head + column[None, :]
    q, scale_log2 = query_for_cache(
        tl.load(q_ptr + q_offset, mask=mask, other=0.0), scale_log2, k_cache_ptr.dtype.element_ty
    )
    best = tl.full((TILE_Q,), -float("inf"), tl.float32)
    weight_sum = tl.zeros((TILE_Q,), tl.float32)
    total = tl.zeros((TILE_Q, HEAD_PAD), tl.float32)
    kv_offset = kv_head.to(tl.int64) * stride_head
    row_table_ptr = table_ptr + row.to(tl.int64) * stride_table
    # Up to the first query's position every query of the tile sees everything; only the diagonal needs a mask.
    diagonal = (num_before + tile * TILE_Q // GROUP + 1) // TILE * TILE
    end = tl.minimum(num_before + (tile * TILE_Q + TILE_Q - 1) // GROUP + 1, seq_len)
    total, weight_sum, best = _attend_tiles(
        q, total, weight_sum, best, 0, diagonal, seq_len, query_position, row_table_ptr,
        k_cache_ptr + kv_offset, v_cache_ptr + kv_offset, scale_log2, stride_block, stride_offset,
        HEAD_SIZE, HEAD_PAD, BLOCK_SIZE, TILE, False, PRECISION,
    )  # fmt: skip
    total, weight_sum, best = _attend_tiles(
        q, total, weight_sum, best, diagonal, end, seq_len, query_position, row_table_ptr,
        k_cache_ptr + kv_offset, v_cache_ptr + kv_offset, scale_log2, stride_block, stride_offset,
        HEAD_SIZE, HEAD_PAD, BLOCK_SIZE, TILE, True, PRECISION,
    )  # fmt: skip
    value = (total / weight_sum[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + token * stride_out_token + head[:, None] * HEAD_SIZE + column[None, :], value, mask=mask)


@dataclass(frozen=True, slots=True)
class PrefillTile:
    """How attention is cut: packed queries and keys a tile, warps and pipeline stages a program."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


def choose_tile(dtype: torch.dtype, kv_dtype: torch.dtype) -> PrefillTile:
    """By measurement on an H200, see experiments/gpu_speed; float32 has to fit on chip."""
    if interpreted():  # whose time goes by the number of tiles
        return PrefillTile(64, 64, 4, 2)
    if max(dtype.itemsize, kv_dtype.itemsize) > 2:
        return PrefillTile(32, 32, 4, 2)
    return PrefillTile(64, 64, 4, 3) if kv_dtype.itemsize == 2 else PrefillTile(128, 128, 8, 2)


@dataclass(slots=True)
class PrefillPlan:
    """The tiles of one step; the same for all layers."""

    query_start_R1: Tensor
    seq_lens_R: Tensor
    block_table_RB: Tensor
    tile_start_R1: Tensor
    """The first tile of each row, and how many there are"""
    tile_row_Q: Tensor
    """The row of each tile; undefined past the last one"""
    num_programs: int
    """A KV head"""
    tile: PrefillTile


def plan_prefill(
    query_start_R1: Tensor,
    seq_lens_R: Tensor,
    block_table_RB: Tensor,
    num_new_R: Tensor,
    *,
    num_tokens: int,
    group: int,
    tile: PrefillTile,
    max_num_rows: int,
    few_rows: bool = False,
) -> PrefillPlan:
    """Number the tiles of all rows. Device work alone.

    Args:
        query_start_R1: row r's tokens are `query_start_R1[r]:query_start_R1[r + 1]`, the last of `seq_lens_R[r]`.
        num_new_R: [R] int32, how many of them to attend with: all, or 0 for a row to leave out.
        num_tokens: at least as many as all of `num_new_R` together.
        group: query heads a KV head.
        max_num_rows: of any step; each power of two of it is compiled anew.
        few_rows: expect hardly any of the rows to have tokens, and start programs for no more.
    """
    num_rows, device = seq_lens_R.shape[0], seq_lens_R.device
    full_tiles = triton.cdiv(num_tokens * group, tile.queries)
    tile_start_R1 = torch.empty(num_rows + 1, dtype=torch.int32, device=device)
    tile_row_Q = torch.empty(full_tiles + num_rows, dtype=torch.int32, device=device)  # each row's last is partly empty
    _plan_kernel[(num_rows,)](
        tile_start_R1, tile_row_Q, num_new_R, num_rows, GROUP=group, TILE_Q=tile.queries,
        ROWS_PAD=triton.next_power_of_2(max_num_rows), COLUMNS=_PLAN_COLUMNS, num_warps=1,
    )  # fmt: skip
    num_programs = full_tiles + (min(num_rows, _FEW_ROWS) if few_rows else num_rows)
    return PrefillPlan(query_start_R1, seq_lens_R, block_table_RB, tile_start_R1, tile_row_Q, num_programs, tile)


def paged_prefill(q_TNH: Tensor, kv_cache: Tensor, plan: PrefillPlan, scale: float, out_TNH: Tensor) -> None:
    """Attend with every row's new tokens to all of the row up to them in the cache.

    Args:
        q_TNH: strided with H innermost.
        kv_cache: [2 (K, V), num_blocks, block_size, M, H], strided with H innermost.
        out_TNH: contiguous; tokens outside the rows are left alone.
    """
    _, num_heads, head_size = q_TNH.shape
    k_cache, v_cache = kv_cache.unbind(0)
    num_kv_heads, table, tile = kv_cache.shape[3], plan.block_table_RB, plan.tile
    _prefill_kernel[(plan.num_programs, num_kv_heads)](
        out_TNH, q_TNH, k_cache, v_cache, table, plan.query_start_R1, plan.seq_lens_R, plan.tile_start_R1,
        plan.tile_row_Q, scale * 1.4426950408889634, plan.seq_lens_R.shape[0],
        q_TNH.stride(0), q_TNH.stride(1), out_TNH.stride(0), table.stride(0), *k_cache.stride()[:3],
        GROUP=num_heads // num_kv_heads, HEAD_SIZE=head_size,
        HEAD_PAD=max(16, triton.next_power_of_2(head_size)), BLOCK_SIZE=kv_cache.shape[2],
        TILE_Q=tile.queries, TILE=tile.keys, PRECISION="ieee" if q_TNH.dtype == torch.float32 else "tf32",
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
