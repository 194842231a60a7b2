"""Draws the tokens of rows with filters, bias or penalties. Other rows keep the tokens that they have."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.interpreter import interpreted
from framework.execution.kernels.cuda.sampling.edits import edit_logits
from framework.execution.kernels.cuda.sampling.gumbel import hash_tokens, log_noise
from framework.execution.kernels.cuda.sampling.source import EDITS, load_logits
from framework.execution.kernels.cuda.sampling.thresholds import least_kept
from framework.interfaces.sampler import TokenHistory
from framework.toolkit.samplers.row_params import RowParams

_BLOCK_TOKENS = 1024
_ROWS_PER_PROGRAM = 4


@triton.jit(do_not_specialize=["num_rows"])
def _race_kernel(
    best_ptr, best_token_ptr, logits_ptr, edited_ptr, threshold_ptr, kind_ptr, temperature_ptr, seed_ptr, position_ptr,
    num_rows, vocab_size, stride_row, num_blocks,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    token = block * BLOCK + tl.arange(0, BLOCK)
    mask = token < vocab_size
    hashed = hash_tokens(token)
    for index in tl.static_range(ROWS):
        row = (tl.program_id(1) * ROWS + index).to(tl.int64)
        if row < num_rows:
            kind = tl.load(kind_ptr + row).to(tl.int32)
            if kind != 0:
                is_edited = (kind & EDITS) != 0
                logit = load_logits(
                    logits_ptr + row * stride_row, edited_ptr + row * vocab_size, is_edited, token, mask
                )
                score = logit
                temperature = tl.load(temperature_ptr + row)
                if temperature > 0:
                    noise = log_noise(hashed, tl.load(seed_ptr + row), tl.load(position_ptr + row), EXACT)
                    score = logit * (1.0 / temperature) - noise
                score = tl.where(logit >= tl.load(threshold_ptr + row), score, -float("inf"))
                best, at = tl.max(score, 0, return_indices=True)  # the lowest index among equals
                tl.store(best_ptr + row * num_blocks + block, best)
                tl.store(best_token_ptr + row * num_blocks + block, block * BLOCK + at)


@triton.jit
def _reduce_kernel(token_ptr, old_token_ptr, kind_ptr, best_ptr, best_token_ptr, num_blocks, BLOCKS_PAD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(old_token_ptr + row)
    if (tl.load(kind_ptr + row) != 0) & (token >= 0):  # not NOT_FINITE
        block = tl.arange(0, BLOCKS_PAD)
        best = tl.load(best_ptr + row * num_blocks + block, mask=block < num_blocks, other=-float("inf"))
        token = tl.load(best_token_ptr + row * num_blocks + tl.argmax(best, 0)).to(tl.int64)
    tl.store(token_ptr + row, token)


def redraw(
    logits_RV: Tensor, params: RowParams, seed_R: Tensor, position_R: Tensor, history: TokenHistory, token_R: Tensor
) -> Tensor:
    """[R] int64: `token_R`, with a new token for every row whose kind is above 0.

    The new token is argmax(x / temperature - log E) over the tokens that the filters of the row keep. Here x are its
    logits with bias and penalties, and E ~ Exp(1) follows from (seed, position). At temperature 0 there is no noise.

    Args:
        logits_RV: of any float dtype, and only read. Rows may be strided.
        history: it is read for rows with penalties.
    """
    num_rows, vocab_size = logits_RV.shape
    num_blocks = triton.cdiv(vocab_size, _BLOCK_TOKENS)
    device = logits_RV.device
    edited_RV = edit_logits(logits_RV, params, history)
    threshold_R = least_kept(logits_RV, edited_RV, params)
    best = torch.empty(num_rows, num_blocks, dtype=torch.float32, device=device)
    best_token = torch.empty(num_rows, num_blocks, dtype=torch.int32, device=device)
    drawn_R = torch.empty(num_rows, dtype=torch.int64, device=device)
    _race_kernel[(num_blocks, triton.cdiv(num_rows, _ROWS_PER_PROGRAM))](
        best, best_token, logits_RV, edited_RV, threshold_R, params.kind_R, params.temperature_R, seed_R, position_R,
        num_rows, vocab_size, logits_RV.stride(0), num_blocks,
        ROWS=_ROWS_PER_PROGRAM, BLOCK=_BLOCK_TOKENS, EXACT=interpreted(), num_warps=4,
    )  # fmt: skip
    _reduce_kernel[(num_rows,)](
        drawn_R, token_R, params.kind_R, best, best_token, num_blocks,
        BLOCKS_PAD=triton.next_power_of_2(num_blocks), num_warps=1,
    )  # fmt: skip
    return drawn_R
