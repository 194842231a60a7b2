"""Finds the smallest logit that min-p, top-k and top-p keep, by several passes over a row and without a sort.

Each of the three filters keeps all logits from some value up, so the answer is one number per row. A search narrows an
interval that holds this number. Each pass measures, for three pivots, what lies above the pivot (the number of tokens,
or their probability) and the smallest logit above it. The first pivot is the smallest logit of the interval. So the
search ends with the value itself, and if logits are coarse (bf16), it needs no more passes than there are values.
Pivots in place of a sort are the idea of FlashInfer's kernels (Xing et al., "Sorting-Free GPU Kernels for LLM
Sampling", flashinfer.ai, 2025).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.sampling.source import EDITS, FILTERS, load_logits
from framework.toolkit.samplers.row_params import RowParams

_BLOCK = 4096
_HOPELESS = tl.constexpr(26.0)
"""log E lies in [-22.2, 2.9]. So a token that is this far below the most likely one, in units of the temperature, never
wins."""


@triton.jit
def _peak(logits_ptr, edited_ptr, is_edited, vocab_size, BLOCK: tl.constexpr):
    """The largest logit."""
    largest = tl.full([BLOCK], -float("inf"), tl.float32)
    for start in range(0, vocab_size, BLOCK):
        token = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, load_logits(logits_ptr, edited_ptr, is_edited, token, token < vocab_size))
    return tl.max(largest, 0)


@triton.jit
def _mass_from(logits_ptr, edited_ptr, is_edited, vocab_size, least, peak, scale, BLOCK: tl.constexpr):
    """The sum of exp((x - peak) * scale) over all logits x that are at least `least`."""
    mass = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocab_size, BLOCK):
        token = start + tl.arange(0, BLOCK)
        x = load_logits(logits_ptr, edited_ptr, is_edited, token, token < vocab_size)
        mass += tl.where(x >= least, tl.exp((x - peak) * scale), 0.0)
    return tl.sum(mass, 0)


@triton.jit
def _search(
    logits_ptr, edited_ptr, is_edited, vocab_size, least, peak, scale, target, COUNT: tl.constexpr, BLOCK: tl.constexpr
):
    """The largest logit x for which the tokens with logits of at least x reach `target`: in number if `COUNT`, else in
    probability mass.

    Logits below `least` are ignored. If all others together do not reach the target, the answer is `least`.
    """
    high = peak  # what lies above it is less than the target
    is_open = 1
    while is_open != 0:
        second = least + (high - least) * (1 / 3)
        third = least + (high - least) * (2 / 3)
        above_1 = tl.zeros([BLOCK], tl.float32)
        above_2 = tl.zeros([BLOCK], tl.float32)
        above_3 = tl.zeros([BLOCK], tl.float32)
        least_1 = tl.full([BLOCK], float("inf"), tl.float32)
        least_2 = tl.full([BLOCK], float("inf"), tl.float32)
        least_3 = tl.full([BLOCK], float("inf"), tl.float32)
        for start in range(0, vocab_size, BLOCK):
            token = start + tl.arange(0, BLOCK)
            x = load_logits(logits_ptr, edited_ptr, is_edited, token, token < vocab_size)
            if COUNT:  # noqa: SIM108 (known to the compiler)
                weight = tl.full([BLOCK], 1.0, tl.float32)
            else:
                weight = tl.exp((x - peak) * scale)
            above_1 += tl.where(x > least, weight, 0.0)
            above_2 += tl.where(x > second, weight, 0.0)
            above_3 += tl.where(x > third, weight, 0.0)
            least_1 = tl.minimum(least_1, tl.where(x > least, x, float("inf")))
            least_2 = tl.minimum(least_2, tl.where(x > second, x, float("inf")))
            least_3 = tl.minimum(least_3, tl.where(x > third, x, float("inf")))
        reaches_1 = tl.sum(above_1, 0) >= target
        reaches_2 = tl.sum(above_2, 0) >= target
        reaches_3 = tl.sum(above_3, 0) >= target
        high = tl.where(reaches_2, tl.where(reaches_3, high, third), second)
        next_least = tl.where(
            reaches_2, tl.where(reaches_3, tl.min(least_3, 0), tl.min(least_2, 0)), tl.min(least_1, 0)
        )
        least = tl.where(reaches_1, next_least, least)
        is_open = (reaches_1 & (least < high)).to(tl.int32)
    return least


@triton.jit
def _threshold_kernel(
    threshold_ptr, logits_ptr, edited_ptr, kind_ptr, temperature_ptr, top_k_ptr, top_p_ptr, log_min_p_ptr,
    vocab_size, stride_row, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    kind = tl.load(kind_ptr + row).to(tl.int32)
    least = -float("inf")
    if (kind & FILTERS) != 0:
        is_edited = (kind & EDITS) != 0
        logits_ptr += row * stride_row
        edited_ptr += row * vocab_size
        temperature = tl.load(temperature_ptr + row)
        scale = 1.0 / temperature
        peak = _peak(logits_ptr, edited_ptr, is_edited, vocab_size, BLOCK)
        # If a bias of minus infinity bans all tokens, or a logit is not finite, there is nothing to search.
        if (peak - peak) == 0.0:
            least = peak + tl.maximum(-_HOPELESS, tl.load(log_min_p_ptr + row)) * temperature
            least = tl.maximum(least, -3e38)  # if the temperature is infinite
            top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
            if top_k > 0:
                least = _search(
                    logits_ptr, edited_ptr, is_edited, vocab_size, least, peak, scale, top_k, COUNT=True, BLOCK=BLOCK
                )
            if top_p < 1:
                mass = _mass_from(logits_ptr, edited_ptr, is_edited, vocab_size, least, peak, scale, BLOCK)
                least = _search(
                    logits_ptr, edited_ptr, is_edited, vocab_size, least, peak, scale, top_p * mass, COUNT=False,
                    BLOCK=BLOCK,
                )  # fmt: skip
    tl.store(threshold_ptr + row, least)


def least_kept(logits_RV: Tensor, edited_RV: Tensor, params: RowParams) -> Tensor:
    """[R] float32: the smallest logit that the filters of a row keep, and -inf for rows without filters.

    Min-p comes first. Top-k applies to what is left, and top-p to what is left then, renormalised.

    Args:
        logits_RV: of any float dtype, and only read. Rows may be strided.
        edited_RV: float32, contiguous. It is read in place of `logits_RV` for rows of kind `EDITS`.
    """
    num_rows, vocab_size = logits_RV.shape
    threshold_R = torch.empty(num_rows, dtype=torch.float32, device=logits_RV.device)
    _threshold_kernel[(num_rows,)](
        threshold_R, logits_RV, edited_RV, params.kind_R, params.temperature_R, params.top_k_R, params.top_p_R,
        params.log_min_p_R, vocab_size, logits_RV.stride(0), BLOCK=_BLOCK, num_warps=16,
    )  # fmt: skip
    return threshold_R
