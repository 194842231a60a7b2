"""Log-probabilities of the sampled and of the most likely tokens, for the rows that ask. It takes one read and no sort.

Each block of the vocabulary gives its most likely tokens, in order, and its part of the normaliser. Then one program
per row merges the blocks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.sampling import MAX_TOP

_BLOCK = 1024


@triton.jit
def _block_kernel(
    max_ptr, sum_ptr, top_ptr, top_token_ptr, logits_ptr, num_top_ptr, vocab_size, stride_row, num_blocks,
    BLOCK: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    num_top = tl.load(num_top_ptr + row)
    if num_top >= 0:
        token = block * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + row * stride_row + token, mask=token < vocab_size, other=-float("inf")).to(tl.float32)
        largest = tl.max(x, 0)
        at = row * num_blocks + block
        tl.store(max_ptr + at, largest)
        tl.store(sum_ptr + at, tl.sum(tl.exp(x - largest), 0))
        for index in range(num_top):
            best, where = tl.max(x, 0, return_indices=True)
            tl.store(top_ptr + at * TOP + index, best)
            tl.store(top_token_ptr + at * TOP + index, block * BLOCK + where)
            x = tl.where(tl.arange(0, BLOCK) == where, -float("inf"), x)


@triton.jit
def _merge_kernel(
    packed_ptr, max_ptr, sum_ptr, top_ptr, top_token_ptr, logits_ptr, token_ptr, num_top_ptr, stride_row, num_blocks,
    stride_packed, BLOCKS_PAD: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    num_top = tl.load(num_top_ptr + row)
    if num_top >= 0:
        packed_ptr += row * stride_packed
        block = tl.arange(0, BLOCKS_PAD)
        at = row * num_blocks + block
        exists = block < num_blocks
        largest_b = tl.load(max_ptr + at, mask=exists, other=-float("inf"))
        largest = tl.max(largest_b, 0)
        total = tl.sum(tl.load(sum_ptr + at, mask=exists, other=0.0) * tl.exp(largest_b - largest), 0)
        norm = largest + tl.log(total)
        token = tl.maximum(tl.load(token_ptr + row), 0)  # NOT_FINITE is below 0
        own = tl.load(logits_ptr + row * stride_row + token).to(tl.float32) - norm
        tl.store(packed_ptr, own.to(tl.int32, bitcast=True))
        head = largest_b  # the best token of each block that was not taken yet
        taken = tl.zeros([BLOCKS_PAD], tl.int32)
        for index in range(num_top):
            best, where = tl.max(head, 0, return_indices=True)
            is_best = block == where
            place = tl.sum(tl.where(is_best, at * TOP + taken, 0), 0)
            tl.store(packed_ptr + 1 + index, tl.load(top_token_ptr + place))
            tl.store(packed_ptr + 1 + TOP + index, (best - norm).to(tl.int32, bitcast=True))
            taken += is_best.to(tl.int32)
            following = tl.load(top_ptr + at * TOP + taken, mask=is_best & (taken < num_top), other=-float("inf"))
            head = tl.where(is_best, following, head)


def top_logprobs(logits_RV: Tensor, token_R: Tensor, num_top_R: Tensor) -> Tensor:
    """[R, 1 + 2 * MAX_TOP] int32. A row holds the log-probability of its token (the bits of a float32), the ids of its
    most likely tokens in order, and their log-probabilities. Entries past the number of tokens of a row are undefined,
    and so are rows with -1.

    Args:
        logits_RV: of any float dtype, and only read. Rows may be strided.
        token_R: [R] int64.
        num_top_R: [R] int32, at most `MAX_TOP`, and -1 for rows that do not ask.
    """
    num_rows, vocab_size = logits_RV.shape
    device = logits_RV.device
    num_blocks = triton.cdiv(vocab_size, _BLOCK)
    largest, total = torch.empty(2, num_rows, num_blocks, dtype=torch.float32, device=device)
    top = torch.empty(num_rows, num_blocks, MAX_TOP, dtype=torch.float32, device=device)
    top_token = torch.empty(num_rows, num_blocks, MAX_TOP, dtype=torch.int32, device=device)
    packed = torch.empty(num_rows, 1 + 2 * MAX_TOP, dtype=torch.int32, device=device)
    _block_kernel[(num_blocks, num_rows)](
        largest, total, top, top_token, logits_RV, num_top_R, vocab_size, logits_RV.stride(0), num_blocks,
        BLOCK=_BLOCK, TOP=MAX_TOP, num_warps=4,
    )  # fmt: skip
    _merge_kernel[(num_rows,)](
        packed, largest, total, top, top_token, logits_RV, token_R, num_top_R, logits_RV.stride(0), num_blocks,
        packed.stride(0), BLOCKS_PAD=triton.next_power_of_2(num_blocks), TOP=MAX_TOP, num_warps=1,
    )  # fmt: skip
    return packed
