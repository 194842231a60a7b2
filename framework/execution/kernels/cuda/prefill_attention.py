"""Causal attention of prefill chunks against the paged cache, after FlashAttention-2 (Dao 2023, arXiv 2307.08691).

The keys and values of the chunk are in the cache already, so a prefix hit, a resumed request and a new prompt are the
same case. A tile holds some new tokens of one row with all query heads of one KV head, because these read the same
keys. A short chunk after a long context has fewer tiles than the GPU can run at once. In such a step the keys are cut
too: an item of work is a tile with a span of keys, and a second kernel combines the partial results. The softmax
weights round as in `decode_attention`, whatever the span is.

`plan` numbers the tiles and items of all rows on the device, and each program takes every n-th of them. So the grid
does not depend on the rows, and a captured graph can replay it for other rows.

Shape letters: R rows, Q tiles, I items, N query heads, M KV heads, H head size, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.fp8 import query_for_cache
from framework.execution.kernels.cuda.interpreter import interpreted
from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous
from framework.execution.kernels.cuda.prefill_combine import combine_kernel
from framework.execution.kernels.cuda.processors import num_processors
from framework.execution.kernels.cuda.shared_memory import fit

_PLAN_COLUMNS = 128
_FEW_ROWS = 16
_SHORTEST_SPAN = 2
"""The smallest number of key tiles in an item, if the keys are cut."""
_COMBINE_PARTS = 32
_COMBINE_QUERIES = 4
"""The number of partial results that a program reads at once."""
_COMBINE_PROGRAMS = 4
"""The number of programs that combine partial results, per KV head and four queries. If keys are cut, tiles are few."""


@triton.jit
def _attend_tiles(
    q, total, weight_sum, best, begin, end, seq_len, query_position, table_ptr, k_cache_ptr, v_cache_ptr, scale_log2,
    stride_block, stride_offset,
    HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, WINDOW: tl.constexpr,
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
        if WINDOW > 0:
            score = tl.where(position[None, :] > query_position[:, None] - WINDOW, score, -float("inf"))
        new_best = tl.maximum(best, tl.ceil(tl.max(score, 1)))
        weight = tl.exp2(score - new_best[:, None])
        shrink = tl.exp2(best - new_best)
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
        best = new_best
    return total, weight_sum, best


@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["query_start_ptr", "seq_len_ptr"])
def _plan_kernel(
    count_ptr, item_ptr, tile_item_ptr, num_new_ptr, query_start_ptr, seq_len_ptr, num_rows,
    GROUP: tl.constexpr, TILE_Q: tl.constexpr, TILE: tl.constexpr, CUT: tl.constexpr, ENOUGH: tl.constexpr,
    SHORTEST_SPAN: tl.constexpr, ROWS_PAD: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    this_row = tl.program_id(0)
    row = tl.arange(0, ROWS_PAD)
    tiles = (tl.load(num_new_ptr + row, mask=row < num_rows, other=0) * GROUP + TILE_Q - 1) // TILE_Q
    key_tiles = (tl.load(seq_len_ptr + row, mask=row < num_rows, other=0) + TILE - 1) // TILE
    key_tiles = tl.where(tiles > 0, key_tiles, 0)
    num_tiles = tl.sum(tiles, 0)
    span = tl.maximum(tl.max(key_tiles, 0), 1)
    if CUT:  # noqa: SIM102 (known to the compiler)
        # Both spans give at most `ENOUGH` items. The first is shorter if rows are similar, the second if they differ.
        if num_tiles < ENOUGH:
            alike = (span + ENOUGH // tl.maximum(num_tiles, 1) - 1) // (ENOUGH // tl.maximum(num_tiles, 1))
            unlike = (tl.sum(tiles * key_tiles, 0) + ENOUGH - num_tiles - 1) // (ENOUGH - num_tiles)
            span = tl.maximum(tl.minimum(alike, unlike), SHORTEST_SPAN)
    num_spans = (key_tiles + span - 1) // span
    items = tiles * num_spans
    first_tile = tl.sum(tl.where(row < this_row, tiles, 0), 0)
    first_item = tl.sum(tl.where(row < this_row, items, 0), 0)
    if this_row == num_rows - 1:
        tl.store(count_ptr, tl.sum(items, 0))
        tl.store(count_ptr + 1, num_tiles)
    spans_here = tl.sum(tl.where(row == this_row, num_spans, 0), 0)
    tiles_here = tl.sum(tl.where(row == this_row, tiles, 0), 0)
    first_token = tl.load(query_start_ptr + this_row)
    num_new = tl.load(num_new_ptr + this_row)
    seq_len = tl.load(seq_len_ptr + this_row)
    for begin in range(0, tiles_here * spans_here, COLUMNS):
        item = begin + tl.arange(0, COLUMNS)
        there = item < tiles_here * spans_here
        # Long tiles come first: the last tokens of a row see the most keys.
        tile = tiles_here - 1 - item // spans_here
        part = item % spans_here
        end = tl.minimum(seq_len - num_new + (tile * TILE_Q + TILE_Q - 1) // GROUP + 1, seq_len)
        at = item_ptr + (first_item + item) * 8
        tl.store(at, tl.zeros((COLUMNS,), tl.int32) + this_row, mask=there)
        tl.store(at + 1, tl.zeros((COLUMNS,), tl.int32) + first_token, mask=there)
        tl.store(at + 2, tl.zeros((COLUMNS,), tl.int32) + num_new, mask=there)
        tl.store(at + 3, tl.zeros((COLUMNS,), tl.int32) + seq_len, mask=there)
        tl.store(at + 4, tile, mask=there)
        tl.store(at + 5, part * span * TILE, mask=there)
        tl.store(at + 6, tl.minimum((part + 1) * span * TILE, end), mask=there)
        tl.store(at + 7, (end + span * TILE - 1) // (span * TILE), mask=there)
        tl.store(tile_item_ptr + first_tile + item // spans_here, first_item + item, mask=there & (part == 0))


# A slice of a step's rows can begin anywhere, and a block table can have any width. One kernel takes all of them, since
# a run would stop for a second of compilation at each new case.
@triton.jit(do_not_specialize=["stride_table"], do_not_specialize_on_alignment=["table_ptr"])
def _prefill_kernel(
    out_ptr, partial_ptr, lse_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, count_ptr, item_ptr, scale_log2,
    stride_q_token, stride_q_head, stride_out_token, stride_table, stride_block, stride_offset, stride_head,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    TILE_Q: tl.constexpr, TILE: tl.constexpr, CUT: tl.constexpr, PRECISION: tl.constexpr, WINDOW: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)  # an earlier kernel than the previous one wrote the plan, so it can be read without waiting
    for number in range(tl.program_id(0), tl.load(count_ptr), tl.num_programs(0)):
        _attend_item(
            out_ptr, partial_ptr, lse_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, item_ptr, number, scale_log2,
            stride_q_token, stride_q_head, stride_out_token, stride_table, stride_block, stride_offset, stride_head,
            GROUP, HEAD_SIZE, HEAD_PAD, BLOCK_SIZE, TILE_Q, TILE, CUT, PRECISION, WINDOW, PDL,
        )  # fmt: skip
    wait_for_previous(PDL)


@triton.jit
def _attend_item(
    out_ptr, partial_ptr, lse_ptr, q_ptr, k_cache_ptr, v_cache_ptr, table_ptr, item_ptr, number, scale_log2,
    stride_q_token, stride_q_head, stride_out_token, stride_table, stride_block, stride_offset, stride_head,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, HEAD_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    TILE_Q: tl.constexpr, TILE: tl.constexpr, CUT: tl.constexpr, PRECISION: tl.constexpr, WINDOW: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    kv_head = tl.program_id(1)
    row, first = tl.load(item_ptr + number * 8), tl.load(item_ptr + number * 8 + 1)
    num_new, seq_len = tl.load(item_ptr + number * 8 + 2), tl.load(item_ptr + number * 8 + 3)
    tile, begin = tl.load(item_ptr + number * 8 + 4), tl.load(item_ptr + number * 8 + 5)
    end, num_parts = tl.load(item_ptr + number * 8 + 6), tl.load(item_ptr + number * 8 + 7)
    num_before = seq_len - num_new
    packed = tile * TILE_Q + tl.arange(0, TILE_Q)  # by token, and within a token by head of the group
    index = packed // GROUP
    head = kv_head * GROUP + packed % GROUP
    query_position = num_before + index
    column = tl.arange(0, HEAD_PAD)
    mask = (index < num_new)[:, None] & (column < HEAD_SIZE)[None, :]
    token = (first + index).to(tl.int64)[:, None]
    q_offset = token * stride_q_token + head[:, None] * stride_q_head + column[None, :]
    wait_for_previous(PDL)
    q, scale_log2 = query_for_cache(
        tl.load(q_ptr + q_offset, mask=mask, other=0.0), scale_log2, k_cache_ptr.dtype.element_ty
    )
    best = tl.full((TILE_Q,), -1.0e30, tl.float32)  # finite, because a query may see none of the keys in a part
    weight_sum = tl.zeros((TILE_Q,), tl.float32)
    total = tl.zeros((TILE_Q, HEAD_PAD), tl.float32)
    kv_offset = kv_head.to(tl.int64) * stride_head
    row_table_ptr = table_ptr + row.to(tl.int64) * stride_table
    # All queries of the tile see everything up to the position of the first query. Only the diagonal needs a mask.
    diagonal = (num_before + tile * TILE_Q // GROUP + 1) // TILE * TILE
    if CUT:
        diagonal = tl.maximum(tl.minimum(diagonal, end // TILE * TILE), begin)
    first_key = begin
    if WINDOW > 0:
        # The tiles before the first query's window are left out, and the others masked.
        first_seen = tl.maximum(num_before + tile * TILE_Q // GROUP - WINDOW + 1, 0)
        first_key = tl.maximum(begin, first_seen // TILE * TILE)
        diagonal = first_key
    total, weight_sum, best = _attend_tiles(
        q, total, weight_sum, best, first_key, diagonal, seq_len, query_position, row_table_ptr,
        k_cache_ptr + kv_offset, v_cache_ptr + kv_offset, scale_log2, stride_block, stride_offset,
        HEAD_SIZE, HEAD_PAD, BLOCK_SIZE, TILE, False, PRECISION, WINDOW,
    )  # fmt: skip
    total, weight_sum, best = _attend_tiles(
        q, total, weight_sum, best, diagonal, end, seq_len, query_position, row_table_ptr,
        k_cache_ptr + kv_offset, v_cache_ptr + kv_offset, scale_log2, stride_block, stride_offset,
        HEAD_SIZE, HEAD_PAD, BLOCK_SIZE, TILE, True, PRECISION, WINDOW,
    )  # fmt: skip
    is_whole = True
    if CUT:
        is_whole = num_parts == 1
    if is_whole:
        out_offset = token * stride_out_token + head[:, None] * HEAD_SIZE + column[None, :]
        if begin < end:
            tl.store(out_ptr + out_offset, (total / weight_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mask)
    elif begin < end:
        slot = number * tl.num_programs(1) + kv_head
        query = tl.arange(0, TILE_Q)
        partial_offset = (slot * TILE_Q + query[:, None]) * HEAD_PAD + column[None, :]
        tl.store(partial_ptr + partial_offset, total, mask=(index < num_new)[:, None])
        tl.store(lse_ptr + slot * 2 * TILE_Q + query, best)
        tl.store(lse_ptr + slot * 2 * TILE_Q + TILE_Q + query, weight_sum)


@dataclass(frozen=True, slots=True)
class PrefillTile:
    """How attention is cut: packed queries and keys per tile, and warps and pipeline stages per program."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


def choose_prefill_tile(
    dtype: torch.dtype, kv_dtype: torch.dtype, head_size: int, limit: int | None = None
) -> PrefillTile:
    """The tile that was fastest on an H200 (experiments/gpu_speed). In float32 or on small GPUs, one that fits."""
    if interpreted():  # its time depends on the number of tiles
        return PrefillTile(64, 64, 4, 2)
    if max(dtype.itemsize, kv_dtype.itemsize) > 2:
        tile = PrefillTile(32, 32, 4, 2)
    else:
        tile = PrefillTile(64, 64, 4, 3) if kv_dtype.itemsize == 2 else PrefillTile(128, 128, 8, 2)
    head_pad = triton.next_power_of_2(head_size)
    queries_bytes = tile.queries * head_pad * dtype.itemsize
    keys, stages = fit(
        tile.keys, tile.num_stages, 2 * head_pad * kv_dtype.itemsize, fixed_bytes=queries_bytes, limit=limit
    )
    return replace(tile, keys=keys, num_stages=stages)


@dataclass(slots=True)
class PrefillPlan:
    """The items of one step. They are the same for all layers."""

    block_table_RB: Tensor
    count_2: Tensor
    """The number of items and the number of tiles."""
    item_I8: Tensor
    """The row, its first token in the step, the number of its new tokens and its length; the tile, the first key and
    the end of the item's keys, and the number of parts into which the keys of the tile are cut. Undefined past the last
    item."""
    tile_item_Q: Tensor
    """The first item of each tile. Undefined past the last tile."""
    num_programs: int
    """The number of programs per KV head."""
    cut: bool
    """Whether the keys of a tile may be cut."""


class PagedPrefill:
    """The kernels and their scratch memory, for one shape of heads. Only one stream may use them at a time.

    Args:
        windows: those that calls will ask for; empty if none will ask for any.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_size: int,
        block_size: int,
        scale: float,
        max_num_rows: int,
        max_num_tokens: int,
        dtype: torch.dtype,
        kv_dtype: torch.dtype,
        device: torch.device,
        tile: PrefillTile,
        windows: Sequence[int | None] = (),
    ) -> None:
        self.num_kv_heads, self.head_size, self.block_size, self.tile = num_kv_heads, head_size, block_size, tile
        self.group = num_heads // num_kv_heads
        self.scale_log2 = scale * 1.4426950408889634
        self._head_pad = max(16, triton.next_power_of_2(head_size))
        self._rows_pad = triton.next_power_of_2(max_num_rows)
        self._enough = max(1, 2 * num_processors(device) // num_kv_heads)
        """With this number of tiles or more, keys are not cut. With fewer tiles, there are at most this many items."""
        slots = self._enough * num_kv_heads
        self._partial = torch.empty(slots * tile.queries * self._head_pad, dtype=torch.float32, device=device)
        self._lse = torch.empty(slots * 2 * tile.queries, dtype=torch.float32, device=device)
        if device.type == "cuda":
            self._compile(max_num_tokens, dtype, kv_dtype, device, windows or (None,))

    def _compile(
        self,
        max_num_tokens: int,
        dtype: torch.dtype,
        kv_dtype: torch.dtype,
        device: torch.device,
        windows: Sequence[int | None],
    ) -> None:
        """Compile the kernels of small and of large steps, with one token each, so that no step of a run has to.

        The window is a constant of the kernel, so each is compiled.
        """
        heads = self.num_kv_heads * self.group
        qkv = torch.zeros(1, heads + 2 * self.num_kv_heads, self.head_size, dtype=dtype, device=device)
        cache = torch.zeros(2, 1, self.block_size, self.num_kv_heads, self.head_size, device=device).to(kv_dtype)
        out = torch.empty(1, heads, self.head_size, dtype=dtype, device=device)
        row = torch.tensor([0, 1], dtype=torch.int32, device=device)
        large = triton.cdiv(self._enough * self.tile.queries, self.group)
        for num_tokens in (1, large) if large <= max_num_tokens else (1,):
            plan = self.plan(row, row[:1].add(1), row[:1].unsqueeze(0), row[:1].add(1), num_tokens=num_tokens)
            for window in dict.fromkeys(windows):
                self(qkv[:, :heads], cache, plan, out, window)

    def plan(
        self,
        query_start_R1: Tensor,
        seq_lens_R: Tensor,
        block_table_RB: Tensor,
        num_new_R: Tensor,
        *,
        num_tokens: int,
        few_rows: bool = False,
    ) -> PrefillPlan:
        """Number the items of all rows. This runs on the device alone.

        Args:
            query_start_R1: the tokens of row r in the step are `query_start_R1[r]:query_start_R1[r + 1]`. They are the
                last of its `seq_lens_R[r]` tokens.
            num_new_R: [R] int32, the number of them that attend: all, or 0 to leave a row out.
            num_tokens: at least the sum of `num_new_R`.
            few_rows: hardly any of the rows has tokens, so only few programs are started.
        """
        num_rows, device, tile = seq_lens_R.shape[0], seq_lens_R.device, self.tile
        full_tiles = triton.cdiv(num_tokens * self.group, tile.queries)  # the last tile of each row is partly empty
        cut = full_tiles < self._enough
        count_2 = torch.empty(2, dtype=torch.int32, device=device)
        item_I8 = torch.empty(max(full_tiles + num_rows, self._enough), 8, dtype=torch.int32, device=device)
        tile_item_Q = torch.empty(full_tiles + num_rows, dtype=torch.int32, device=device)
        _plan_kernel[(num_rows,)](
            count_2, item_I8, tile_item_Q, num_new_R, query_start_R1, seq_lens_R, num_rows, GROUP=self.group,
            TILE_Q=tile.queries, TILE=tile.keys, CUT=cut, ENOUGH=self._enough, SHORTEST_SPAN=_SHORTEST_SPAN,
            ROWS_PAD=self._rows_pad, COLUMNS=_PLAN_COLUMNS, num_warps=1,
        )  # fmt: skip
        num_programs = full_tiles + (min(num_rows, _FEW_ROWS) if few_rows else num_rows)
        if cut:
            num_programs = max(num_programs, self._enough)
        return PrefillPlan(block_table_RB, count_2, item_I8, tile_item_Q, num_programs, cut)

    def __call__(
        self, q_TNH: Tensor, kv_cache: Tensor, plan: PrefillPlan, out_TNH: Tensor, window: int | None = None
    ) -> None:
        """Attention of the new tokens of every row to all tokens of the row up to them, which are in the cache.

        Args:
            q_TNH: may be strided, with H innermost.
            kv_cache: [2 (K, V), num_blocks, block_size, M, H]; may be strided, with H innermost.
            out_TNH: contiguous. Tokens outside the rows are not written.
            window: how many positions a token sees, its own included; None for all up to it.
        """
        k_cache, v_cache = kv_cache.unbind(0)
        table, tile = plan.block_table_RB, self.tile
        shape = {"GROUP": self.group, "HEAD_SIZE": self.head_size, "HEAD_PAD": self._head_pad, "TILE_Q": tile.queries}
        _prefill_kernel[(plan.num_programs, self.num_kv_heads)](
            out_TNH, self._partial, self._lse, q_TNH, k_cache, v_cache, table, plan.count_2, plan.item_I8,
            self.scale_log2,
            q_TNH.stride(0), q_TNH.stride(1), out_TNH.stride(0), table.stride(0), *k_cache.stride()[:3],
            **shape, BLOCK_SIZE=self.block_size, TILE=tile.keys, CUT=plan.cut,
            PRECISION="ieee" if q_TNH.dtype == torch.float32 else "tf32", WINDOW=window or 0,
            num_warps=tile.num_warps, num_stages=tile.num_stages, **launch_options(),
        )  # fmt: skip
        if plan.cut:
            combine_kernel[(_COMBINE_PROGRAMS, self.num_kv_heads, triton.cdiv(tile.queries, _COMBINE_QUERIES))](
                out_TNH, self._partial, self._lse, plan.count_2, plan.item_I8, plan.tile_item_Q, out_TNH.stride(0),
                **shape, PARTS=_COMBINE_PARTS, QUERIES=_COMBINE_QUERIES, num_warps=4, **launch_options(),
            )  # fmt: skip
