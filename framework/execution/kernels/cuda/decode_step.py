"""The beginning and the end of a decode step on the device.

The inputs come from the batch state, and the sampled tokens go back into it.
A row is a slot and a position. A row that pads a graph has slot `num_slots`, which is one past the last. Nothing here
needs the host, so a captured graph that begins with `decode_inputs` and ends with `feed_back` can be replayed for many
steps.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 64


@triton.jit
def _decode_inputs_kernel(
    token_ptr, seq_len_ptr, slot_mapping_ptr, table_out_ptr, row_slot_ptr, row_position_ptr, token_ids_ptr, table_ptr,
    num_slots, stride_tokens, stride_table, stride_table_out,
    BLOCK_SIZE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(row_slot_ptr + row)
    position = tl.load(row_position_ptr + row)
    if slot < num_slots:
        tl.store(token_ptr + row, tl.load(token_ids_ptr + slot * stride_tokens + position))
        tl.store(seq_len_ptr + row, (position + 1).to(tl.int32))
        block = tl.load(table_ptr + slot * stride_table + position // BLOCK_SIZE).to(tl.int64)
        tl.store(slot_mapping_ptr + row, block * BLOCK_SIZE + position % BLOCK_SIZE)
        num_columns = position // BLOCK_SIZE + 1
        for start in range(0, num_columns, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            blocks = tl.load(table_ptr + slot * stride_table + column, mask=column < num_columns, other=0)
            tl.store(table_out_ptr + row * stride_table_out + column, blocks, mask=column < num_columns)
    else:
        tl.store(token_ptr + row, 0)
        tl.store(seq_len_ptr + row, 0)
        tl.store(slot_mapping_ptr + row, -1)


def decode_inputs(
    slot_R: Tensor,
    position_R: Tensor,
    token_ids_SL: Tensor,
    block_table_SB: Tensor,
    block_size: int,
    num_slots: int,
    *,
    token_R: Tensor,
    seq_lens_R: Tensor,
    slot_mapping_R: Tensor,
    block_table_RB: Tensor,
) -> None:
    """Fill the four outputs for rows at `position_R` ([R] int64) of `slot_R` ([R] int64).

    A padding row gets token 0, length 0 and cache slot -1, so it attends to nothing and writes nothing.
    """
    _decode_inputs_kernel[(slot_R.shape[0],)](
        token_R, seq_lens_R, slot_mapping_R, block_table_RB, slot_R, position_R, token_ids_SL, block_table_SB,
        num_slots, token_ids_SL.stride(0), block_table_SB.stride(0), block_table_RB.stride(0),
        BLOCK_SIZE=block_size, COLUMNS=_COLUMNS, num_warps=1,
    )  # fmt: skip


@triton.jit
def _feed_back_kernel(
    token_ids_ptr, row_position_ptr, row_slot_ptr, sampled_ptr, num_slots, stride_tokens, ADVANCE: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(row_slot_ptr + row)
    if slot < num_slots:
        position = tl.load(row_position_ptr + row) + ADVANCE
        token = tl.maximum(tl.load(sampled_ptr + row), 0)  # NOT_FINITE is no token, and the next step must find one
        tl.store(token_ids_ptr + slot * stride_tokens + position, token.to(tl.int32))
        if ADVANCE:
            tl.store(row_position_ptr + row, position)


def feed_back(slot_R: Tensor, position_R: Tensor, sampled_R: Tensor, token_ids_SL: Tensor, num_slots: int) -> None:
    """Write the sampled tokens ([R] int64) after the last tokens of the rows, and advance `position_R` to them."""
    _feed_back_kernel[(slot_R.shape[0],)](
        token_ids_SL, position_R, slot_R, sampled_R, num_slots, token_ids_SL.stride(0), ADVANCE=1, num_warps=1
    )


def feed_back_again(
    slot_R: Tensor, position_R: Tensor, sampled_R: Tensor, token_ids_SL: Tensor, num_slots: int
) -> None:
    """Overwrite the tokens that `feed_back` wrote. `position_R` is where it left it, at these tokens."""
    _feed_back_kernel[(slot_R.shape[0],)](
        token_ids_SL, position_R, slot_R, sampled_R, num_slots, token_ids_SL.stride(0), ADVANCE=0, num_warps=1
    )
