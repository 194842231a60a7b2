"""Bias and penalties for the rows that have any. They change a float32 copy of the logits of these rows.

First, the kernel marks each token that a row has seen or has a bias for, in memory of that row. A mark holds the number
of occurrences in the output, whether the prompt has the token, and which bias it gets. Occurrences are counted by
integer addition, whose order does not matter. Then one pass turns the marks into logits in place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.sampling.source import EDITS
from framework.interfaces.sampler import TokenHistory
from framework.toolkit.samplers.row_params import MAX_BIAS, RowParams

_BLOCK = 2048
_BLOCKS_PER_PROGRAM = 4
"""The number of programs is small, because most rows of most batches have nothing to do."""
_IN_PROMPT: tl.constexpr = tl.constexpr(1 << 19)
_ONE_BIAS: tl.constexpr = tl.constexpr(1 << 20)
"""A mark is an int32: 19 low bits for occurrences, one bit for the prompt, and 11 bits for 1 + the index of a bias."""


@triton.jit
def _clear_kernel(marks_ptr, kind_ptr, vocab_size, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    if (tl.load(kind_ptr + row).to(tl.int32) & EDITS) != 0:
        for index in range(BLOCKS):
            token = (tl.program_id(0) * BLOCKS + index) * BLOCK + tl.arange(0, BLOCK)
            tl.store(marks_ptr + row * vocab_size + token, tl.zeros([BLOCK], tl.int32), mask=token < vocab_size)


@triton.jit
def _mark_kernel(
    marks_ptr, kind_ptr, penalized_ptr, num_bias_ptr, bias_token_ptr, slot_ptr, token_ids_ptr, num_prompt_ptr,
    num_tokens_ptr, vocab_size, stride_tokens, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    marks_ptr += row * vocab_size
    if (tl.load(kind_ptr + row).to(tl.int32) & EDITS) != 0:
        if tl.program_id(0) == 0:
            entry = tl.arange(0, BIAS)
            has_bias = entry < tl.load(num_bias_ptr + row).to(tl.int32)
            token = tl.load(bias_token_ptr + row * BIAS + entry, mask=has_bias, other=0)
            tl.atomic_add(marks_ptr + token, (entry + 1) * _ONE_BIAS, mask=has_bias)
        if tl.load(penalized_ptr + row) != 0:
            slot = tl.load(slot_ptr + row)
            num_prompt, num_tokens = tl.load(num_prompt_ptr + slot), tl.load(num_tokens_ptr + row)
            first = tl.program_id(0) * BLOCKS * BLOCK
            last = tl.minimum(num_tokens, first + BLOCKS * BLOCK)
            for start in range(first, last, BLOCK):
                position = start + tl.arange(0, BLOCK)
                exists = position < num_tokens
                token = tl.load(token_ids_ptr + slot * stride_tokens + position, mask=exists, other=0)
                tl.atomic_add(marks_ptr + token, 1, mask=exists & (position >= num_prompt))
                tl.atomic_or(marks_ptr + token, _IN_PROMPT, mask=exists & (position < num_prompt))


@triton.jit
def _apply_kernel(
    marks_ptr, edited_ptr, logits_ptr, kind_ptr, bias_value_ptr, repetition_ptr, presence_ptr, frequency_ptr,
    vocab_size, stride_row, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    if (tl.load(kind_ptr + row).to(tl.int32) & EDITS) != 0:
        repetition, presence = tl.load(repetition_ptr + row), tl.load(presence_ptr + row)
        frequency = tl.load(frequency_ptr + row)
        for index in range(BLOCKS):
            token = (tl.program_id(0) * BLOCKS + index) * BLOCK + tl.arange(0, BLOCK)
            mask = token < vocab_size
            x = tl.load(logits_ptr + row * stride_row + token, mask=mask, other=0.0).to(tl.float32)
            mark = tl.load(marks_ptr + row * vocab_size + token, mask=mask, other=0)
            bias = mark // _ONE_BIAS
            x += tl.load(bias_value_ptr + row * BIAS + bias - 1, mask=bias > 0, other=0.0)
            count = (mark % _IN_PROMPT).to(tl.float32)
            x = tl.where(mark % _ONE_BIAS > 0, tl.where(x > 0, x / repetition, x * repetition), x)
            x -= frequency * count + tl.where(count > 0, presence, 0.0)
            tl.store(edited_ptr + row * vocab_size + token, x, mask=mask)


def edit_logits(logits_RV: Tensor, params: RowParams, history: TokenHistory) -> Tensor:
    """[R, V] float32: the logits of rows of kind `EDITS` with bias and penalties. Other rows are undefined.

    The bias comes first, then the repetition, frequency and presence penalties, as in `framework.toolkit.samplers`.

    Args:
        logits_RV: of any float dtype, and only read. Rows may be strided.
    """
    num_rows, vocab_size = logits_RV.shape
    marks_RV = torch.empty(num_rows, vocab_size, dtype=torch.int32, device=logits_RV.device)
    edited_RV = marks_RV.view(torch.float32)  # each program of the last kernel reads only what it overwrites itself
    span = _BLOCK * _BLOCKS_PER_PROGRAM
    grid = (triton.cdiv(vocab_size, span), num_rows)
    max_len = history.token_ids_SL.shape[1]
    options = {"BLOCK": _BLOCK, "BLOCKS": _BLOCKS_PER_PROGRAM, "num_warps": 8}
    _clear_kernel[grid](marks_RV, params.kind_R, vocab_size, **options)
    _mark_kernel[(max(1, triton.cdiv(max_len, span)), num_rows)](
        marks_RV, params.kind_R, params.penalized_R, params.num_bias_R, params.bias_token_RB, history.slot_R,
        history.token_ids_SL, history.num_prompt_S, history.num_tokens_R, vocab_size, history.token_ids_SL.stride(0),
        BIAS=MAX_BIAS, **options,
    )  # fmt: skip
    _apply_kernel[grid](
        marks_RV, edited_RV, logits_RV, params.kind_R, params.bias_value_RB, params.repetition_R, params.presence_R,
        params.frequency_R, vocab_size, logits_RV.stride(0), BIAS=MAX_BIAS, **options,
    )  # fmt: skip
    return edited_RV
