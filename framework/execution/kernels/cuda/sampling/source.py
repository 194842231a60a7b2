"""Reads the logits of a row: those of the model, or those that bias and penalties have changed."""

from __future__ import annotations

import triton
import triton.language as tl

FILTERS: tl.constexpr = tl.constexpr(1)
EDITS: tl.constexpr = tl.constexpr(2)
"""The bits of a row's kind, as in `framework.toolkit.samplers.row_params`."""


@triton.jit
def load_logits(logits_ptr, edited_ptr, is_edited, token, mask):
    """The float32 logits of some tokens of one row, and -inf where `mask` is false."""
    plain = tl.load(logits_ptr + token, mask=mask & ~is_edited, other=-float("inf")).to(tl.float32)
    edited = tl.load(edited_ptr + token, mask=mask & is_edited, other=-float("inf"))
    return tl.where(is_edited, edited, plain)
