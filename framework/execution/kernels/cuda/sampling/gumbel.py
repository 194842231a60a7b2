"""Temperature sampling in one read of the logits: noise, division and argmax, without an [R, V] intermediate.

The noise has the same bits as that of `framework.toolkit.samplers.noise`, except for the rounding of its logarithm.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import libdevice

from framework.execution.kernels.cuda.interpreter import interpreted
from framework.interfaces.sampler import NOT_FINITE

_BLOCK_TOKENS = 1024
_ROWS_PER_PROGRAM = 4
"""The number of rows that share the hash of a token id."""


@triton.jit
def _mix_64(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _log(x, EXACT: tl.constexpr):
    if EXACT:
        return tl.log(x)
    return libdevice.fast_logf(x)  # one GPU instruction and a product


@triton.jit
def _log_exponential(bits, EXACT: tl.constexpr):
    """log(-log1p(-(y + 0.5) 2^-31)) of the 31 random bits y."""
    w = bits.to(tl.float32) * ((1 - 2.0**-24) * 2.0**-31) + 2.0**-32
    # A series for small w: near 1, the error of the hardware's log2 is at most 2^-22 absolute, but not relative.
    series = w * (1 + w * (1 / 2 + w * (1 / 3 + w * (1 / 4 + w * (1 / 5 + w * (1 / 6))))))
    return _log(tl.where(w < 0.0625, series, -_log(1 - w, EXACT)), EXACT)


@triton.jit
def hash_tokens(token):
    """The part of the noise of a token id that all rows have in common."""
    hashed = (token + 1).to(tl.uint32)
    hashed = (hashed ^ (hashed >> 16)) * 0x7FEB352D
    hashed = (hashed ^ (hashed >> 15)) * 0x846CA68B
    return hashed ^ (hashed >> 16)


@triton.jit
def log_noise(hashed, seed, position, EXACT: tl.constexpr):
    """log E, where E ~ Exp(1) is a function of (seed, position, token id)."""
    key = _mix_64(_mix_64(seed.to(tl.uint64) + 0x9E3779B97F4A7C15) + position.to(tl.uint64) * 0x9E3779B97F4A7C15)
    x = hashed ^ (key & 0xFFFFFFFF).to(tl.uint32)
    x = x * ((key >> 32).to(tl.uint32) | 1)
    x = (x ^ (x >> 16)) * 0x846CA68B
    signed = x.to(tl.int32, bitcast=True)
    return _log_exponential(signed ^ (signed >> 15), EXACT)


@triton.jit(do_not_specialize=["num_rows", "first_token"])
def _gumbel_kernel(
    best_ptr, best_token_ptr, logits_ptr, divisor_ptr, weight_ptr, seed_ptr, position_ptr,
    num_rows, vocab_size, first_token, stride_row, num_blocks,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    token = block * BLOCK + tl.arange(0, BLOCK)
    mask = token < vocab_size
    hashed = hash_tokens(first_token + token)
    for index in tl.static_range(ROWS):
        row = (tl.program_id(1) * ROWS + index).to(tl.int64)
        if row < num_rows:
            logit = tl.load(logits_ptr + row * stride_row + token, mask=mask, other=0.0).to(tl.float32)
            score = logit
            weight = tl.load(weight_ptr + row)
            if weight != 0:  # a greedy row needs no noise
                noise = log_noise(hashed, tl.load(seed_ptr + row), tl.load(position_ptr + row), EXACT)
                score = logit * (1.0 / tl.load(divisor_ptr + row)) - noise
            score = tl.where(logit - logit == 0.0, score, float("inf"))  # NaN and infinities win
            score = tl.where(mask, score, -float("inf"))
            best, at = tl.max(score, 0, return_indices=True)  # the lowest index among equals
            tl.store(best_ptr + row * num_blocks + block, best)
            tl.store(best_token_ptr + row * num_blocks + block, block * BLOCK + at)


@triton.jit(do_not_specialize=["first_token"])
def _reduce_kernel(
    token_ptr, score_ptr, best_ptr, best_token_ptr, first_token, num_blocks,
    BLOCKS_PAD: tl.constexpr, WITH_SCORE: tl.constexpr, NOT_FINITE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS_PAD)
    best = tl.load(best_ptr + row * num_blocks + block, mask=block < num_blocks, other=-float("inf"))
    score, at = tl.max(best, 0, return_indices=True)
    token = tl.load(best_token_ptr + row * num_blocks + at).to(tl.int64) + first_token
    tl.store(token_ptr + row, tl.where(score == float("inf"), NOT_FINITE, token))
    if WITH_SCORE:
        tl.store(score_ptr + row, score)


def gumbel_argmax(logits_RV: Tensor, divisor_R: Tensor, weight_R: Tensor, seed_R: Tensor, position_R: Tensor) -> Tensor:
    """[R] int64, one token per row: argmax(logits / divisor - log E), where E ~ Exp(1) follows from (seed, position).

    A row with a logit that is NaN or infinite gets `NOT_FINITE`.

    Args:
        logits_RV: of any float dtype, and only read. Rows may be strided.
        divisor_R: float32, the temperatures; 1 for greedy rows.
        weight_R: float32, 0 for a greedy row and 1 for a row that draws.
    """
    return _race(logits_RV, divisor_R, weight_R, seed_R, position_R, 0, None)


def gumbel_best(
    logits_RW: Tensor, divisor_R: Tensor, weight_R: Tensor, seed_R: Tensor, position_R: Tensor, first_token: int
) -> tuple[Tensor, Tensor]:
    """`gumbel_argmax` of the W tokens that begin at id `first_token`. Returns scores [R] float32 and tokens [R] int64.

    A row that is not finite has an infinite score, so that it wins over the scores of other ranks.
    """
    score_R = torch.empty(len(logits_RW), dtype=torch.float32, device=logits_RW.device)
    return score_R, _race(logits_RW, divisor_R, weight_R, seed_R, position_R, first_token, score_R)


def _race(
    logits_RV: Tensor,
    divisor_R: Tensor,
    weight_R: Tensor,
    seed_R: Tensor,
    position_R: Tensor,
    first_token: int,
    score_R: Tensor | None,
) -> Tensor:
    num_rows, vocab_size = logits_RV.shape
    num_blocks = triton.cdiv(vocab_size, _BLOCK_TOKENS)
    device = logits_RV.device
    best = torch.empty(num_rows, num_blocks, dtype=torch.float32, device=device)
    best_token = torch.empty(num_rows, num_blocks, dtype=torch.int32, device=device)
    token_R = torch.empty(num_rows, dtype=torch.int64, device=device)
    grid = (num_blocks, triton.cdiv(num_rows, _ROWS_PER_PROGRAM))
    _gumbel_kernel[grid](
        best, best_token, logits_RV, divisor_R, weight_R, seed_R, position_R,
        num_rows, vocab_size, first_token, logits_RV.stride(0), num_blocks,
        ROWS=_ROWS_PER_PROGRAM, BLOCK=_BLOCK_TOKENS, EXACT=interpreted(), num_warps=4,
    )  # fmt: skip
    _reduce_kernel[(num_rows,)](
        token_R, best if score_R is None else score_R, best, best_token, first_token, num_blocks,
        BLOCKS_PAD=triton.next_power_of_2(num_blocks), WITH_SCORE=score_R is not None, NOT_FINITE=NOT_FINITE,
        num_warps=1,
    )  # fmt: skip
    return token_R
