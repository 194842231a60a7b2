"""Paged attention of decode rows: split over the context, the query heads of a KV head packed into one tile.

The flash-decoding scheme (Dao et al., "Flash-Decoding for long-context inference", 2023) with splits of equal work:
`plan` cuts the contexts of the batch, on the device, into a list of items of about the same number of tiles, so that
the grid is fixed (a captured graph can replay it) and still balanced when lengths differ. The last item of a row to end
combines the partial results, so there is no second kernel.

Shape letters: R rows, N query heads, M KV heads, G = N / M, H head size, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.kernels.cuda.fp8 import query_for_cache, unpack_e4m3
from framework.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous

_FEW_ROWS = 16
_FIELDS = 8
"""Of an item: row, first position, end, the row's first item, its number of items; the rest pads to 32 bytes."""
_COMBINE = 8
"""Partial results that are read at once"""


@triton.jit(do_not_specialize=["num_rows", "target_items"])
def _plan_kernel(
    item_ptr, num_items_ptr, seq_len_ptr, num_rows, target_items,
    NUM_KV_HEADS: tl.constexpr, TILE: tl.constexpr, ROWS_PAD: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS_PAD)
    length = tl.load(seq_len_ptr + row, mask=row < num_rows, other=0)
    tiles = (length + TILE - 1) // TILE
    chunk = (tl.sum(tiles, 0) * NUM_KV_HEADS + target_items - 1) // target_items
    chunk = tl.maximum(chunk, 1)
    items = (tiles + chunk - 1) // chunk
    past = tl.cumsum(items, 0)
    first = past - items
    tl.store(num_items_ptr, tl.sum(items, 0))
    for part in range(tl.max(items, 0)):  # the items of a row differ by a tile at most
        there = part < items
        begin = part * tiles // tl.maximum(items, 1) * TILE
        end = tl.minimum((part + 1) * tiles // tl.maximum(items, 1) * TILE, length)
        at = item_ptr + (first + part) * FIELDS
        tl.store(at, row, mask=there)
        tl.store(at + 1, begin, mask=there)
        tl.store(at + 2, end, mask=there)
        tl.store(at + 3, first, mask=there)
        tl.store(at + 4, items, mask=there)


@triton.jit
def _decode_kernel(
    out_ptr, partial_ptr, lse_ptr, counter_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr,
    item_ptr, num_items_ptr, scale_log2, stride_q_token, stride_q_head, stride_table,
    stride_block, stride_offset, stride_head,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, HEAD_SIZE: tl.constexpr,
    HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, FIELDS: tl.constexpr, COMBINE: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)  # the plan is older than the kernel before this one, so it can be read without waiting
    item = tl.program_id(0) // NUM_KV_HEADS
    kv_head = tl.program_id(0) % NUM_KV_HEADS
    at_item_ptr = item_ptr + item * FIELDS  # one line of memory, read at once
    row = tl.load(at_item_ptr)
    begin = tl.load(at_item_ptr + 1)
    end = tl.load(at_item_ptr + 2)
    first_item = tl.load(at_item_ptr + 3)
    num_items = tl.load(at_item_ptr + 4)
    if item >= tl.load(num_items_ptr):  # the grid is as large as the worst batch needs
        wait_for_previous(PDL)
        return

    group = tl.arange(0, GROUP_PAD)
    column = tl.arange(0, HEAD_PAD)
    mask_GH = (group < GROUP)[:, None] & (column < HEAD_SIZE)[None, :]
    head = kv_head * GROUP + group
    q_offset = row.to(tl.int64) * stride_q_token + head[:, None] * stride_q_head + column[None, :]
    wait_for_previous(PDL)
    q, scale_log2 = query_for_cache(
        tl.load(q_ptr + q_offset, mask=mask_GH, other=0.0), scale_log2, k_cache_ptr.dtype.element_ty
    )

    best = tl.full((GROUP_PAD,), -float("inf"), tl.float32)
    weight_sum = tl.zeros((GROUP_PAD,), tl.float32)
    narrow: tl.constexpr = v_cache_ptr.dtype.element_ty == tl.float8e4nv
    if narrow:
        # The tensor cores want V's columns where one byte at a time would have to be gathered. Words of four columns
        # are gathered instead, and each of their bytes is a product of its own.
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
        if BLOCK_SIZE % TILE == 0:
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
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
        score = tl.where(inside[None, :], score, -float("inf"))
        new_best = tl.maximum(best, tl.max(score, 1))
        weight = tl.exp2(score - new_best[:, None])
        shrink = tl.exp2(best - new_best)
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        weight = weight.to(q.dtype)
        if narrow:
            keep = shrink[:, None]
            total_0 = tl.dot(weight, unpack_e4m3(v, 0, q.dtype), total_0 * keep, input_precision=PRECISION)
            total_1 = tl.dot(weight, unpack_e4m3(v, 1, q.dtype), total_1 * keep, input_precision=PRECISION)
            total_2 = tl.dot(weight, unpack_e4m3(v, 2, q.dtype), total_2 * keep, input_precision=PRECISION)
            total_3 = tl.dot(weight, unpack_e4m3(v, 3, q.dtype), total_3 * keep, input_precision=PRECISION)
        else:
            total = tl.dot(weight, v, total * shrink[:, None], input_precision=PRECISION)
        best = new_best

    if narrow:
        columns = tl.join(tl.join(total_0, total_2), tl.join(total_1, total_3))  # of 4 w + 2 i + j, [.., w, i, j]
        total = tl.reshape(columns, (GROUP_PAD, HEAD_PAD))
    out_offset = (row.to(tl.int64) * NUM_KV_HEADS * GROUP + head[:, None]) * HEAD_SIZE + column[None, :]
    if num_items == 1:
        tl.store(out_ptr + out_offset, (total / weight_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mask_GH)
    else:
        slot = item * NUM_KV_HEADS + kv_head
        in_slot = group[:, None] * HEAD_PAD + column[None, :]
        tl.store(partial_ptr + slot * GROUP * HEAD_PAD + in_slot, total, mask=(group < GROUP)[:, None])
        tl.store(lse_ptr + slot * 2 * GROUP + group, best, mask=group < GROUP)
        tl.store(lse_ptr + slot * 2 * GROUP + GROUP + group, weight_sum, mask=group < GROUP)
        tl.debug_barrier()  # every thread's part is written before the arrival is announced
        counter = counter_ptr + row * NUM_KV_HEADS + kv_head
        if tl.atomic_add(counter, 1, sem="acq_rel") == num_items - 1:
            tl.store(counter, 0)  # for the next layer
            for member in range(GROUP):
                best_one = tl.full((), -float("inf"), tl.float32)
                sum_one = tl.zeros((), tl.float32)
                total_one = tl.zeros((HEAD_PAD,), tl.float32)
                for start in range(first_item, first_item + num_items, COMBINE):
                    other = start + tl.arange(0, COMBINE)
                    there = other < first_item + num_items
                    slots = other * NUM_KV_HEADS + kv_head
                    lse = lse_ptr + slots * 2 * GROUP + member
                    other_best = tl.load(lse, mask=there, other=-float("inf"), cache_modifier=".cg")
                    other_sum = tl.load(lse + GROUP, mask=there, other=0.0, cache_modifier=".cg")
                    at = partial_ptr + (slots[:, None] * GROUP + member) * HEAD_PAD + column[None, :]
                    part = tl.load(at, mask=there[:, None], other=0.0, cache_modifier=".cg")
                    new_best = tl.maximum(best_one, tl.max(other_best, 0))
                    shrink, other_shrink = tl.exp2(best_one - new_best), tl.exp2(other_best - new_best)
                    total_one = total_one * shrink + tl.sum(part * other_shrink[:, None], 0)
                    sum_one = sum_one * shrink + tl.sum(other_sum * other_shrink, 0)
                    best_one = new_best
                at_out = (row.to(tl.int64) * NUM_KV_HEADS * GROUP + kv_head * GROUP + member) * HEAD_SIZE + column
                value = (total_one / sum_one).to(out_ptr.dtype.element_ty)
                tl.store(out_ptr + at_out, value, mask=column < HEAD_SIZE)


@dataclass(frozen=True, slots=True)
class DecodeTile:
    """How contexts are cut: tokens a tile, warps and pipeline stages a program, items that the grid aims at."""

    tokens: int = 128
    num_warps: int = 4
    num_stages: int = 2
    target_items: int = 2048


@dataclass(slots=True)
class DecodePlan:
    """Where the work of one step was cut; the same for all layers."""

    items_IF: Tensor
    num_items: Tensor
    block_table_RB: Tensor


class PagedDecode:
    """The kernel with its scratch memory, for one shape of heads. One stream uses it at a time."""

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
        tile: DecodeTile | None = None,
    ) -> None:
        self.num_kv_heads, self.head_size, self.block_size = num_kv_heads, head_size, block_size
        self.group = num_heads // num_kv_heads
        self.tile = tile or DecodeTile()
        self.scale_log2 = scale * 1.4426950408889634
        self._max_rows_pad = triton.next_power_of_2(max_num_rows)
        self._group_pad = max(16, triton.next_power_of_2(self.group))
        self._head_pad = max(16, triton.next_power_of_2(head_size))
        scratch = self._max_items(max_num_rows) * num_kv_heads * self.group
        self._partial = torch.empty(scratch * self._head_pad, dtype=torch.float32, device=device)
        self._lse = torch.empty(scratch * 2, dtype=torch.float32, device=device)
        self._counter = torch.zeros(max_num_rows * num_kv_heads, dtype=torch.int32, device=device)

    def plan(self, seq_lens_R: Tensor, block_table_RB: Tensor) -> DecodePlan:
        """Cut the step's contexts ([R] int32 lengths, [R, B] int32 tables) into items. Device work alone."""
        num_rows = seq_lens_R.shape[0]
        device = seq_lens_R.device
        items_IF = torch.empty(self._max_items(num_rows), _FIELDS, dtype=torch.int32, device=device)
        num_items = torch.empty(1, dtype=torch.int32, device=device)
        _plan_kernel[(1,)](
            items_IF, num_items, seq_lens_R, num_rows, self.tile.target_items, NUM_KV_HEADS=self.num_kv_heads,
            TILE=self.tile.tokens, ROWS_PAD=self._rows_pad(num_rows), FIELDS=_FIELDS, num_warps=4,
        )  # fmt: skip
        return DecodePlan(items_IF, num_items, block_table_RB)

    def _max_items(self, num_rows: int) -> int:
        return triton.cdiv(self.tile.target_items, self.num_kv_heads) + num_rows

    def _rows_pad(self, num_rows: int) -> int:
        """Two sizes, not one a power of two: each is compiled anew."""
        return _FEW_ROWS if num_rows <= _FEW_ROWS else self._max_rows_pad

    def __call__(self, q_RNH: Tensor, kv_cache: Tensor, plan: DecodePlan, out_RNH: Tensor) -> None:
        """Attend with the rows' last token, whose KV is in the cache ([2, num_blocks, block_size, M, H] strided).

        `q_RNH` may be strided with H innermost; `out_RNH` is contiguous.
        """
        k_cache, v_cache = kv_cache.unbind(0)
        _decode_kernel[(self._max_items(q_RNH.shape[0]) * self.num_kv_heads,)](
            out_RNH, self._partial, self._lse, self._counter, q_RNH, k_cache, v_cache, plan.block_table_RB,
            plan.items_IF, plan.num_items, self.scale_log2,
            q_RNH.stride(0), q_RNH.stride(1), plan.block_table_RB.stride(0), *k_cache.stride()[:3],
            NUM_KV_HEADS=self.num_kv_heads, GROUP=self.group, GROUP_PAD=self._group_pad, HEAD_SIZE=self.head_size,
            HEAD_PAD=self._head_pad, BLOCK_SIZE=self.block_size, TILE=self.tile.tokens, FIELDS=_FIELDS,
            COMBINE=_COMBINE, PRECISION="ieee" if q_RNH.dtype == torch.float32 else "tf32",
            num_warps=self.tile.num_warps, num_stages=self.tile.num_stages,
            **launch_options(),
        )  # fmt: skip
