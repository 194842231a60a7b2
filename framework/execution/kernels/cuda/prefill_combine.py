"""The second kernel of `prefill_attention`, where the keys of a tile were cut: partial results become one."""

from __future__ import annotations

import triton
import triton.language as tl

from framework.execution.kernels.cuda.pdl import let_next_start, wait_for_previous


@triton.jit
def combine_kernel(
    out_ptr, partial_ptr, lse_ptr, count_ptr, item_ptr, tile_item_ptr, stride_out_token,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr, TILE_Q: tl.constexpr, PARTS: tl.constexpr,
    QUERIES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    kv_head = tl.program_id(1)
    query = tl.program_id(2) * QUERIES + tl.arange(0, QUERIES)
    column = tl.arange(0, HEAD_PAD)
    for number in range(tl.program_id(0), tl.load(count_ptr + 1), tl.num_programs(0)):
        item = tl.load(tile_item_ptr + number)
        first, num_new = tl.load(item_ptr + item * 8 + 1), tl.load(item_ptr + item * 8 + 2)
        tile, num_parts = tl.load(item_ptr + item * 8 + 4), tl.load(item_ptr + item * 8 + 7)
        wait_for_previous(PDL)
        packed = tile * TILE_Q + query
        wanted = packed < num_new * GROUP
        if num_parts > 1 and tile * TILE_Q + tl.program_id(2) * QUERIES < num_new * GROUP:
            best = tl.full((QUERIES,), -1.0e30, tl.float32)
            weight_sum = tl.zeros((QUERIES,), tl.float32)
            total = tl.zeros((QUERIES, HEAD_PAD), tl.float32)
            for start in range(0, num_parts, PARTS):
                part = start + tl.arange(0, PARTS)
                there = (part < num_parts)[:, None] & wanted[None, :]
                slot = ((item + part) * tl.num_programs(1) + kv_head)[:, None]
                lse = lse_ptr + slot * 2 * TILE_Q + query[None, :]
                part_best = tl.load(lse, mask=there, other=-1.0e30)
                part_sum = tl.load(lse + TILE_Q, mask=there, other=0.0)
                at = (slot * TILE_Q + query[None, :])[:, :, None] * HEAD_PAD + column[None, None, :]
                part_total = tl.load(partial_ptr + at, mask=there[:, :, None], other=0.0)
                new_best = tl.maximum(best, tl.max(part_best, 0))
                shrink, part_shrink = tl.exp2(best - new_best), tl.exp2(part_best - new_best[None, :])
                total = total * shrink[:, None] + tl.sum(part_total * part_shrink[:, :, None], 0)
                weight_sum = weight_sum * shrink + tl.sum(part_sum * part_shrink, 0)
                best = new_best
            token = (first + packed // GROUP).to(tl.int64)
            out_offset = token * stride_out_token + (kv_head * GROUP + packed % GROUP) * HEAD_SIZE
            value = (total / tl.where(wanted, weight_sum, 1.0)[:, None]).to(out_ptr.dtype.element_ty)
            mask = wanted[:, None] & (column < HEAD_SIZE)[None, :]
            tl.store(out_ptr + out_offset[:, None] + column[None, :], value, mask=mask)
    wait_for_previous(PDL)
