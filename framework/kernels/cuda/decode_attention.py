"""Paged attention of decode rows: split over the context, the query heads of a KV head packed into one tile.

The flash-decoding scheme (Dao et al., "Flash-Decoding for long-context inference", 2023) with splits of equal work:
`plan_splits` cuts the contexts of the batch, on the device, into items of about the same number of tiles, so that the
grid is fixed (a captured graph can replay it) and still balanced when lengths differ. The last item of a row to end
combines the partial results, so there is no second kernel.

Shape letters: R rows, N query heads, M KV heads, G = N / M, H head size, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous

_FEW_ROWS = 16


@triton.jit(do_not_specialize=["num_rows", "target_items"])
def _plan_kernel(
    item_start_ptr, chunk_ptr, seq_len_ptr, num_rows, target_items,
    NUM_KV_HEADS: tl.constexpr, TILE: tl.constexpr, ROWS_PAD: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS_PAD)
    length = tl.load(seq_len_ptr + row, mask=row < num_rows, other=0)
    tiles = (length + TILE - 1) // TILE
    chunk = (tl.sum(tiles, 0) * NUM_KV_HEADS + target_items - 1) // target_items
    chunk = tl.maximum(chunk, 1)
    items = (tiles + chunk - 1) // chunk
    tl.store(item_start_ptr, 0)
    tl.store(item_start_ptr + 1 + row, tl.cumsum(items, 0), mask=row < num_rows)
    tl.store(chunk_ptr, chunk * TILE)


@triton.jit(do_not_specialize=["num_rows"])
def _decode_kernel(
    out_ptr, partial_ptr, lse_ptr, counter_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, seq_len_ptr,
    item_start_ptr, chunk_ptr, scale_log2, num_rows, stride_q_token, stride_q_head, stride_table,
    stride_block, stride_offset, stride_head,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, HEAD_SIZE: tl.constexpr,
    HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, ROWS_PAD: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)  # the plan is older than the kernel before this one, so it can be read without waiting
    item = tl.program_id(0) // NUM_KV_HEADS
    kv_head = tl.program_id(0) % NUM_KV_HEADS
    row_index = tl.arange(0, ROWS_PAD)
    item_end = tl.load(item_start_ptr + 1 + row_index, mask=row_index < num_rows, other=2147483647)
    row = tl.sum((item_end <= item).to(tl.int32), 0)
    if row >= num_rows:  # the grid is as large as the worst batch needs
        wait_for_previous(PDL)
        return
    first_item = tl.load(item_start_ptr + row)
    num_items = tl.load(item_start_ptr + row + 1) - first_item
    chunk = tl.load(chunk_ptr)
    begin = (item - first_item) * chunk
    end = tl.minimum(begin + chunk, tl.load(seq_len_ptr + row))

    group = tl.arange(0, GROUP_PAD)
    column = tl.arange(0, HEAD_PAD)
    mask_GH = (group < GROUP)[:, None] & (column < HEAD_SIZE)[None, :]
    head = kv_head * GROUP + group
    q_offset = row.to(tl.int64) * stride_q_token + head[:, None] * stride_q_head + column[None, :]
    wait_for_previous(PDL)
    q = tl.load(q_ptr + q_offset, mask=mask_GH, other=0.0)

    best = tl.full((GROUP_PAD,), -float("inf"), tl.float32)
    weight_sum = tl.zeros((GROUP_PAD,), tl.float32)
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
        v = tl.load(v_cache_ptr + at[:, None] + column[None, :], mask=mask_LH, other=0.0).to(q.dtype)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
        score = tl.where(inside[None, :], score, -float("inf"))
        new_best = tl.maximum(best, tl.max(score, 1))
        weight = tl.exp2(score - new_best[:, None])
        shrink = tl.exp2(best - new_best)
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
        best = new_best

    out_offset = (row.to(tl.int64) * NUM_KV_HEADS * GROUP + head[:, None]) * HEAD_SIZE + column[None, :]
    if num_items == 1:
        tl.store(out_ptr + out_offset, (total / weight_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mask_GH)
    else:
        slot = item * NUM_KV_HEADS + kv_head
        in_slot = group[:, None] * HEAD_PAD + column[None, :]
        tl.store(partial_ptr + slot * GROUP_PAD * HEAD_PAD + in_slot, total)
        tl.store(lse_ptr + slot * 2 * GROUP_PAD + group, best)
        tl.store(lse_ptr + slot * 2 * GROUP_PAD + GROUP_PAD + group, weight_sum)
        tl.debug_barrier()  # every thread's part is written before the arrival is announced
        counter = counter_ptr + row * NUM_KV_HEADS + kv_head
        if tl.atomic_add(counter, 1, sem="acq_rel") == num_items - 1:
            tl.store(counter, 0)  # for the next layer
            best = tl.full((GROUP_PAD,), -float("inf"), tl.float32)
            weight_sum = tl.zeros((GROUP_PAD,), tl.float32)
            total = tl.zeros((GROUP_PAD, HEAD_PAD), tl.float32)
            for other in range(first_item, first_item + num_items):
                slot = other * NUM_KV_HEADS + kv_head
                other_best = tl.load(lse_ptr + slot * 2 * GROUP_PAD + group, cache_modifier=".cg")
                other_sum = tl.load(lse_ptr + slot * 2 * GROUP_PAD + GROUP_PAD + group, cache_modifier=".cg")
                part = tl.load(partial_ptr + slot * GROUP_PAD * HEAD_PAD + in_slot, cache_modifier=".cg")
                new_best = tl.maximum(best, other_best)
                shrink, other_shrink = tl.exp2(best - new_best), tl.exp2(other_best - new_best)
                total = total * shrink[:, None] + part * other_shrink[:, None]
                weight_sum = weight_sum * shrink + other_sum * other_shrink
                best = new_best
            tl.store(out_ptr + out_offset, (total / weight_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mask_GH)


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

    item_start_R1: Tensor
    chunk_tokens: Tensor
    seq_lens_R: Tensor
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
        max_items = triton.cdiv(self.tile.target_items, num_kv_heads) + max_num_rows
        scratch = max_items * num_kv_heads * self._group_pad
        self._partial = torch.empty(scratch * self._head_pad, dtype=torch.float32, device=device)
        self._lse = torch.empty(scratch * 2, dtype=torch.float32, device=device)
        self._counter = torch.zeros(max_num_rows * num_kv_heads, dtype=torch.int32, device=device)

    def plan(self, seq_lens_R: Tensor, block_table_RB: Tensor) -> DecodePlan:
        """Cut the step's contexts ([R] int32 lengths, [R, B] int32 tables) into items. Device work alone."""
        num_rows = seq_lens_R.shape[0]
        device = seq_lens_R.device
        item_start_R1 = torch.empty(num_rows + 1, dtype=torch.int32, device=device)
        chunk_tokens = torch.empty(1, dtype=torch.int32, device=device)
        _plan_kernel[(1,)](
            item_start_R1, chunk_tokens, seq_lens_R, num_rows, self.tile.target_items,
            NUM_KV_HEADS=self.num_kv_heads, TILE=self.tile.tokens, ROWS_PAD=self._rows_pad(num_rows),
            num_warps=4,
        )  # fmt: skip
        return DecodePlan(item_start_R1, chunk_tokens, seq_lens_R, block_table_RB)

    def _rows_pad(self, num_rows: int) -> int:
        """Two sizes, not one a power of two: each is compiled anew."""
        return _FEW_ROWS if num_rows <= _FEW_ROWS else self._max_rows_pad

    def __call__(self, q_RNH: Tensor, kv_cache: Tensor, plan: DecodePlan, out_RNH: Tensor) -> None:
        """Attend with the rows' last token, whose KV is in the cache ([2, num_blocks, block_size, M, H] strided).

        `q_RNH` may be strided with H innermost; `out_RNH` is contiguous.
        """
        k_cache, v_cache = kv_cache.unbind(0)
        num_rows = q_RNH.shape[0]
        max_items = triton.cdiv(self.tile.target_items, self.num_kv_heads) + num_rows
        _decode_kernel[(max_items * self.num_kv_heads,)](
            out_RNH, self._partial, self._lse, self._counter, q_RNH, k_cache, v_cache, plan.block_table_RB,
            plan.seq_lens_R, plan.item_start_R1, plan.chunk_tokens, self.scale_log2, num_rows,
            q_RNH.stride(0), q_RNH.stride(1), plan.block_table_RB.stride(0), *k_cache.stride()[:3],
            NUM_KV_HEADS=self.num_kv_heads, GROUP=self.group, GROUP_PAD=self._group_pad, HEAD_SIZE=self.head_size,
            HEAD_PAD=self._head_pad, BLOCK_SIZE=self.block_size, TILE=self.tile.tokens,
            ROWS_PAD=self._rows_pad(num_rows), PRECISION="ieee" if q_RNH.dtype == torch.float32 else "tf32",
            num_warps=self.tile.num_warps, num_stages=self.tile.num_stages,
            **launch_options(),
        )  # fmt: skip
