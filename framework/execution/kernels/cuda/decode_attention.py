"""Paged attention of decode rows. The context is split, and the query heads of one KV head are packed into one tile.

This is the flash-decoding scheme (Dao et al., "Flash-Decoding for long-context inference", 2023) with the division of
work of Stream-K (Osama et al., arXiv 2301.03598). The tiles of all rows form one sequence, which is cut into as many
equal ranges as there are programs at once, regardless of where rows begin and end. `plan` computes the ranges on the
device. So the grid is fixed, which lets a captured graph replay it, and every program reads the same number of bytes
even if the lengths differ. If a row was cut, the last of its ranges to end combines the partial results, so that no
second kernel is needed.

The places where rows are cut depend on the whole batch, so the softmax weights must round in the same way wherever a
range begins. They are therefore powers of two relative to an integer that is at least the best score so far. A
different integer changes only their exponents.

Shape letters: R rows, N query heads, M KV heads, G = N / M, H head size, P ranges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.fp8 import query_for_cache, unpack_e4m3
from framework.execution.kernels.cuda.interpreter import interpreted
from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous
from framework.execution.kernels.cuda.processors import num_processors
from framework.execution.kernels.cuda.shared_memory import fit

_FEW_ROWS = 16
_COMBINE = 8
"""The number of partial results that are read at once."""


@triton.jit(do_not_specialize=["num_rows"])
def _plan_kernel(
    tile_start_ptr, range_row_ptr, seq_len_ptr, num_rows,
    RANGES: tl.constexpr, RANGES_PAD: tl.constexpr, TILE: tl.constexpr, ROWS_PAD: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS_PAD)
    length = tl.load(seq_len_ptr + row, mask=row < num_rows, other=0)
    tiles = (length + TILE - 1) // TILE
    past = tl.cumsum(tiles, 0)
    tl.store(tile_start_ptr, 0)
    tl.store(tile_start_ptr + 1 + row, past, mask=row < num_rows)
    num_tiles = tl.sum(tiles, 0)
    num_ranges = tl.minimum(num_tiles, RANGES)
    index = tl.arange(0, RANGES_PAD)
    first_tile = index * num_tiles // tl.maximum(num_ranges, 1)
    range_row = tl.zeros((RANGES_PAD,), tl.int32)
    for start in range(0, num_rows, 16):  # the number of rows that end at or before the first tile of a range
        some = start + tl.arange(0, 16)
        some_tiles = (tl.load(seq_len_ptr + some, mask=some < num_rows, other=0) + TILE - 1) // TILE
        end = tl.sum(tl.where(row < start, tiles, 0), 0) + tl.cumsum(some_tiles, 0)
        range_row += tl.sum(((end[None, :] <= first_tile[:, None]) & (some < num_rows)[None, :]).to(tl.int32), 1)
    tl.store(range_row_ptr + index, range_row, mask=index < RANGES)


@triton.jit(do_not_specialize=["num_rows", "stride_table"])  # the block table of an eager step can have any width
def _decode_kernel(
    out_ptr, partial_ptr, lse_ptr, counter_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, seq_len_ptr, skipped_ptr,
    tile_start_ptr, range_row_ptr, scale_log2, num_rows, stride_q_token, stride_q_head, stride_table,
    stride_block, stride_offset, stride_head,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, HEAD_SIZE: tl.constexpr,
    HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, RANGES: tl.constexpr,
    COMBINE: tl.constexpr, PRECISION: tl.constexpr, WINDOWED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)  # the plan is older than the kernel before this one, so it can be read without waiting
    this_range = tl.program_id(0) // NUM_KV_HEADS
    kv_head = tl.program_id(0) % NUM_KV_HEADS
    num_tiles = tl.load(tile_start_ptr + num_rows)
    row = tl.load(range_row_ptr + this_range)
    num_ranges = tl.minimum(num_tiles, RANGES)
    if this_range >= num_ranges:
        wait_for_previous(PDL)
        return
    tile = this_range * num_tiles // num_ranges
    last_tile = (this_range + 1) * num_tiles // num_ranges

    group = tl.arange(0, GROUP_PAD)
    column = tl.arange(0, HEAD_PAD)
    mask_GH = (group < GROUP)[:, None] & (column < HEAD_SIZE)[None, :]
    head = kv_head * GROUP + group
    narrow: tl.constexpr = v_cache_ptr.dtype.element_ty == tl.float8e4nv
    score_scale = scale_log2
    wait_for_previous(PDL)
    while tile < last_tile:
        row_start = tl.load(tile_start_ptr + row)
        row_end = tl.load(tile_start_ptr + row + 1)
        seq_len = tl.load(seq_len_ptr + row)
        skipped = 0
        if WINDOWED:
            skipped = tl.load(skipped_ptr + row)
        q_offset = row.to(tl.int64) * stride_q_token + head[:, None] * stride_q_head + column[None, :]
        q = tl.load(q_ptr + q_offset, mask=mask_GH, other=0.0)
        q, score_scale = query_for_cache(q, scale_log2, k_cache_ptr.dtype.element_ty)
        begin = (tile - row_start) * TILE
        end = tl.minimum((tl.minimum(last_tile, row_end) - row_start) * TILE, seq_len)
        best = tl.full((GROUP_PAD,), -float("inf"), tl.float32)
        weight_sum = tl.zeros((GROUP_PAD,), tl.float32)
        if narrow:
            # The tensor cores take V by columns, which would have to be gathered byte by byte. So words of four
            # columns are gathered instead, and each of their four bytes takes part in a separate product.
            word = tl.arange(0, HEAD_PAD // 4)
            v_word_ptr = v_cache_ptr.to(tl.pointer_type(tl.int32))
            total_0 = tl.zeros((GROUP_PAD, HEAD_PAD // 4), tl.float32)
            total_1, total_2, total_3 = total_0, total_0, total_0
        else:
            total = tl.zeros((GROUP_PAD, HEAD_PAD), tl.float32)
        row_table_ptr = table_ptr + row.to(tl.int64) * stride_table
        for start in range(begin, end, TILE):
            position = start + tl.arange(0, TILE)
            inside = position < end
            if WINDOWED:
                place = position + skipped
                block = tl.load(row_table_ptr + place // BLOCK_SIZE, mask=inside, other=0).to(tl.int64)
                at = block * stride_block + (place % BLOCK_SIZE) * stride_offset + kv_head * stride_head
            elif BLOCK_SIZE % TILE == 0:
                block = tl.load(row_table_ptr + start // BLOCK_SIZE).to(tl.int64)
                at = block * stride_block + (position % BLOCK_SIZE) * stride_offset + kv_head * stride_head
            else:
                block = tl.load(row_table_ptr + position // BLOCK_SIZE, mask=inside, other=0).to(tl.int64)
                at = block * stride_block + (position % BLOCK_SIZE) * stride_offset + kv_head * stride_head
            mask_LH = inside[:, None] & (column < HEAD_SIZE)[None, :]
            k = tl.load(k_cache_ptr + at[:, None] + column[None, :], mask=mask_LH, other=0.0).to(q.dtype)
            if narrow:
                mask_LW = inside[:, None] & (word < HEAD_SIZE // 4)[None, :]
                v = tl.load(v_word_ptr + (at // 4)[:, None] + word[None, :], mask=mask_LW, other=0)
            else:
                v = tl.load(v_cache_ptr + at[:, None] + column[None, :], mask=mask_LH, other=0.0).to(q.dtype)
            score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * score_scale
            score = tl.where(inside[None, :], score, -float("inf"))
            new_best = tl.maximum(best, tl.ceil(tl.max(score, 1)))
            weight = tl.exp2(score - new_best[:, None])
            shrink = tl.exp2(best - new_best)
            weight_sum = weight_sum * shrink + tl.sum(weight, 1)
            weight = weight.to(q.dtype)
            keep = shrink[:, None]
            if narrow:
                total_0 = tl.dot(weight, unpack_e4m3(v, 0, q.dtype), total_0 * keep, input_precision=PRECISION)
                total_1 = tl.dot(weight, unpack_e4m3(v, 1, q.dtype), total_1 * keep, input_precision=PRECISION)
                total_2 = tl.dot(weight, unpack_e4m3(v, 2, q.dtype), total_2 * keep, input_precision=PRECISION)
                total_3 = tl.dot(weight, unpack_e4m3(v, 3, q.dtype), total_3 * keep, input_precision=PRECISION)
            else:
                total = tl.dot(weight, v, total * keep, input_precision=PRECISION)
            best = new_best
        if narrow:
            columns = tl.join(tl.join(total_0, total_2), tl.join(total_1, total_3))  # [.., w, i, j] is 4 w + 2 i + j
            total = tl.reshape(columns, (GROUP_PAD, HEAD_PAD))

        # The ranges that hold the first and the last tile of the row.
        first_range = ((row_start + 1) * num_ranges - 1) // num_tiles
        last_range = (row_end * num_ranges - 1) // num_tiles
        out_offset = (row.to(tl.int64) * NUM_KV_HEADS * GROUP + head[:, None]) * HEAD_SIZE + column[None, :]
        if first_range == last_range:
            tl.store(out_ptr + out_offset, (total / weight_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mask_GH)
        else:
            # A range has two places for partial results: for the row in whose middle it begins, and for the row in
            # whose middle it ends.
            slot = (2 * this_range + (this_range == first_range).to(tl.int32)) * NUM_KV_HEADS + kv_head
            in_slot = group[:, None] * HEAD_PAD + column[None, :]
            tl.store(partial_ptr + slot * GROUP * HEAD_PAD + in_slot, total, mask=(group < GROUP)[:, None])
            tl.store(lse_ptr + slot * 2 * GROUP + group, best, mask=group < GROUP)
            tl.store(lse_ptr + slot * 2 * GROUP + GROUP + group, weight_sum, mask=group < GROUP)
            tl.debug_barrier()  # all threads have written their parts before the arrival is announced
            counter = counter_ptr + row * NUM_KV_HEADS + kv_head
            if tl.atomic_add(counter, 1, sem="acq_rel") == last_range - first_range:
                tl.store(counter, 0)  # reset for the next layer
                _combine(
                    out_ptr, partial_ptr, lse_ptr, row, kv_head, first_range, last_range,
                    NUM_KV_HEADS, GROUP, HEAD_SIZE, HEAD_PAD, COMBINE,
                )  # fmt: skip
        tile = tl.minimum(last_tile, row_end)
        row += 1


@triton.jit
def _combine(
    out_ptr, partial_ptr, lse_ptr, row, kv_head, first_range, last_range,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr,
    COMBINE: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, HEAD_PAD)
    for member in range(GROUP):
        best = tl.full((), -float("inf"), tl.float32)
        weight_sum = tl.zeros((), tl.float32)
        total = tl.zeros((HEAD_PAD,), tl.float32)
        for start in range(first_range, last_range + 1, COMBINE):
            part = start + tl.arange(0, COMBINE)
            there = part <= last_range
            slot = (2 * part + (part == first_range).to(tl.int32)) * NUM_KV_HEADS + kv_head
            lse = lse_ptr + slot * 2 * GROUP + member
            part_best = tl.load(lse, mask=there, other=-float("inf"), cache_modifier=".cg")
            part_sum = tl.load(lse + GROUP, mask=there, other=0.0, cache_modifier=".cg")
            at = partial_ptr + (slot[:, None] * GROUP + member) * HEAD_PAD + column[None, :]
            part_total = tl.load(at, mask=there[:, None], other=0.0, cache_modifier=".cg")
            new_best = tl.maximum(best, tl.max(part_best, 0))
            shrink, part_shrink = tl.exp2(best - new_best), tl.exp2(part_best - new_best)
            total = total * shrink + tl.sum(part_total * part_shrink[:, None], 0)
            weight_sum = weight_sum * shrink + tl.sum(part_sum * part_shrink, 0)
            best = new_best
        at_out = (row.to(tl.int64) * NUM_KV_HEADS * GROUP + kv_head * GROUP + member) * HEAD_SIZE + column
        tl.store(out_ptr + at_out, (total / weight_sum).to(out_ptr.dtype.element_ty), mask=column < HEAD_SIZE)


@dataclass(frozen=True, slots=True)
class DecodeTile:
    """How contexts are cut: tokens per tile, warps and pipeline stages per program, and programs per multiprocessor."""

    tokens: int
    num_warps: int
    num_stages: int
    programs: int


def choose_decode_tile(
    dtype: torch.dtype, kv_dtype: torch.dtype, head_size: int, limit: int | None = None
) -> DecodeTile:
    """The tile that was fastest on an H200 (experiments/gpu_speed). In float32 or on small GPUs, one that fits."""
    if max(dtype.itemsize, kv_dtype.itemsize) > 2 or interpreted():
        tile = DecodeTile(32, 4, 2, 3)
    else:
        tile = DecodeTile(128, 4, 3, 2) if kv_dtype.itemsize == 2 else DecodeTile(64, 4, 2, 4)
    bytes_per_token = 2 * triton.next_power_of_2(head_size) * kv_dtype.itemsize
    tokens, stages = fit(tile.tokens, tile.num_stages, bytes_per_token, limit=limit)
    return replace(tile, tokens=tokens, num_stages=stages)


@dataclass(slots=True)
class DecodePlan:
    """How the work of one step was cut. It is the same for all layers."""

    tile_start_R1: Tensor
    """The index of the first tile of each row among the tiles of all rows, and at the end the number of tiles."""
    range_row_P: Tensor
    """The row in which each range begins."""
    seq_lens_R: Tensor
    """How many positions of each row are read"""
    block_table_RB: Tensor
    skipped_R: Tensor | None
    """How many positions lie before the first one that is read, where there is a window"""


class PagedDecode:
    """The kernel and its scratch memory, for one shape of heads. Only one stream may use it at a time."""

    def __init__(
        self,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_size: int,
        block_size: int,
        scale: float,
        max_num_rows: int,
        device: torch.device,
        tile: DecodeTile,
    ) -> None:
        self.num_kv_heads, self.head_size, self.block_size = num_kv_heads, head_size, block_size
        self.group = num_heads // num_kv_heads
        self.tile = tile
        self.num_ranges = max(1, self.tile.programs * num_processors(device) // num_kv_heads)
        self.scale_log2 = scale * 1.4426950408889634
        self._max_rows_pad = triton.next_power_of_2(max_num_rows)
        self._group_pad = max(16, triton.next_power_of_2(self.group))
        self._head_pad = max(16, triton.next_power_of_2(head_size))
        scratch = 2 * self.num_ranges * num_kv_heads * self.group
        self._partial = torch.empty(scratch * self._head_pad, dtype=torch.float32, device=device)
        self._lse = torch.empty(scratch * 2, dtype=torch.float32, device=device)
        self._counter = torch.zeros(max_num_rows * num_kv_heads, dtype=torch.int32, device=device)
        if max_num_rows > _FEW_ROWS:  # compile now, else an eager step does so in the middle of a run
            lengths_R = torch.zeros(max_num_rows, dtype=torch.int32, device=device)
            self.plan(lengths_R, lengths_R.unsqueeze(1))

    def plan(self, seq_lens_R: Tensor, block_table_RB: Tensor, window: int | None = None) -> DecodePlan:
        """Cut the step's contexts ([R] int32 lengths, [R, B] int32 tables) into ranges. This runs on the device alone.

        Rows of length 0 must come last. With a window, only the last `window` positions of each row are cut.
        """
        skipped_R = None
        if window is not None:
            skipped_R = (seq_lens_R - window).clamp(min=0)
            seq_lens_R = seq_lens_R - skipped_R
        num_rows = seq_lens_R.shape[0]
        device = seq_lens_R.device
        tile_start_R1 = torch.empty(num_rows + 1, dtype=torch.int32, device=device)
        range_row_P = torch.empty(self.num_ranges, dtype=torch.int32, device=device)
        _plan_kernel[(1,)](
            tile_start_R1, range_row_P, seq_lens_R, num_rows, RANGES=self.num_ranges,
            RANGES_PAD=triton.next_power_of_2(self.num_ranges), TILE=self.tile.tokens,
            ROWS_PAD=_FEW_ROWS if num_rows <= _FEW_ROWS else self._max_rows_pad,  # one compilation per size
            num_warps=4,
        )  # fmt: skip
        return DecodePlan(tile_start_R1, range_row_P, seq_lens_R, block_table_RB, skipped_R)

    def __call__(self, q_RNH: Tensor, kv_cache: Tensor, plan: DecodePlan, out_RNH: Tensor) -> None:
        """Attention of the last token of each row. Its KV is in the cache, [2, num_blocks, block_size, M, H], strided.

        `q_RNH` may be strided, with H innermost. `out_RNH` is contiguous.
        """
        k_cache, v_cache = kv_cache.unbind(0)
        _decode_kernel[(self.num_ranges * self.num_kv_heads,)](
            out_RNH, self._partial, self._lse, self._counter, q_RNH, k_cache, v_cache, plan.block_table_RB,
            plan.seq_lens_R, plan.seq_lens_R if plan.skipped_R is None else plan.skipped_R,
            plan.tile_start_R1, plan.range_row_P, self.scale_log2, q_RNH.shape[0],
            q_RNH.stride(0), q_RNH.stride(1), plan.block_table_RB.stride(0), *k_cache.stride()[:3],
            NUM_KV_HEADS=self.num_kv_heads, GROUP=self.group, GROUP_PAD=self._group_pad, HEAD_SIZE=self.head_size,
            HEAD_PAD=self._head_pad, BLOCK_SIZE=self.block_size, TILE=self.tile.tokens, RANGES=self.num_ranges,
            COMBINE=_COMBINE, PRECISION="ieee" if q_RNH.dtype == torch.float32 else "tf32",
            WINDOWED=plan.skipped_R is not None,
            num_warps=self.tile.num_warps, num_stages=self.tile.num_stages,
            **launch_options(),
        )  # fmt: skip
