"""Finds the rows that hold a logit that is NaN or infinite, in one read, for samplers that do not check this."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 8192


@triton.jit
def _not_finite_kernel(bad_ptr, logits_ptr, vocab_size, stride_row, BLOCK: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + row * stride_row + token, mask=token < vocab_size, other=0.0).to(tl.float32)
    if tl.max((x - x != 0.0).to(tl.int32), 0) > 0:
        tl.store(bad_ptr + row, 1)


def not_finite_rows(logits_RV: Tensor) -> Tensor:
    """[R] bool. The logits have any float dtype and may be strided."""
    num_rows, vocab_size = logits_RV.shape
    bad_R = torch.zeros(num_rows, dtype=torch.int8, device=logits_RV.device)
    _not_finite_kernel[(triton.cdiv(vocab_size, _BLOCK), num_rows)](
        bad_R, logits_RV, vocab_size, logits_RV.stride(0), BLOCK=_BLOCK, num_warps=8
    )
    return bad_R.bool()
