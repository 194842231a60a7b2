"""Where a row's logits lie: as the model gave them, or changed by bias and penalties."""

from __future__ import annotations

import triton
import triton.language as tl

FILTERS: tl.constexpr = tl.constexpr(1)
EDITS: tl.constexpr = tl.constexpr(2)
"""Bits of a row's kind, as in `framework.toolkit.samplers.row_params`."""


@triton.jit
def load_logits(logits_ptr, edited_ptr, is_edited, token, mask):
    """float32 logits of the tokens of one row; -inf where `mask` is false."""
    plain = tl.load(logits_ptr + token, mask=mask & ~is_edited, other=-float("inf")).to(tl.float32)
    edited = tl.load(edited_ptr + token, mask=mask & is_edited, other=-float("inf"))
    return tl.where(is_edited, edited, plain)
