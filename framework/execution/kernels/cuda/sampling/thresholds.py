"""The least logit that min-p, top-k and top-p keep, found without a sort.

Each of them keeps the logits from some value on, so the answer is one number per row. It is searched by pivots in place
of a sort, the idea of FlashInfer's kernels (Xing et al., "Sorting-Free GPU Kernels for LLM Sampling", flashinfer.ai,
2025), and only where it can lie: a first kernel, in parallel, finds the maximum of every group of 128 tokens, and what
is known of the answer from these maxima rules most groups out. Then one program per row searches among the others.

A search keeps an interval that holds the answer. A pass measures what lies above three pivots (how many tokens, or how
much probability) and what the least logit above each is. The first pivot is the least logit of the interval, so that a
search ends with the value itself, and needs few passes where logits are coarse (bf16).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.sampling.source import EDITS, FILTERS, load_logits
from framework.toolkit.samplers.row_params import RowParams

_GROUP = 128
_GROUPS_PER_PROGRAM = 32
_BLOCK = 4096
_HALVINGS = 12
_HOPELESS = tl.constexpr(26.0)
"""log E lies in [-22.2, 2.9]: a token so far below the most likely one, in units of the temperature, never wins."""


@triton.jit
def _maxima_kernel(
    maxima_ptr, logits_ptr, edited_ptr, kind_ptr, vocab_size, stride_row, num_groups,
    GROUPS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    kind = tl.load(kind_ptr + row).to(tl.int32)
    if (kind & FILTERS) != 0:
        group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
        token = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
        x = load_logits(
            logits_ptr + row * stride_row, edited_ptr + row * vocab_size, (kind & EDITS) != 0, token, token < vocab_size
        )
        tl.store(maxima_ptr + row * num_groups + group, tl.max(x, 1), mask=group < num_groups)


@triton.jit
def _list_groups(list_ptr, maxima, least):
    """Write down the groups that hold a logit of at least `least`; returns how many there are."""
    group = tl.arange(0, maxima.shape[0])
    listed = maxima >= least
    place = tl.cumsum(listed.to(tl.int32), 0) - 1
    tl.debug_barrier()  # the list before may still be read
    tl.store(list_ptr + place, group, mask=listed)
    tl.debug_barrier()
    return tl.sum(listed.to(tl.int32), 0)


@triton.jit
def _load_listed(
    logits_ptr, edited_ptr, is_edited, list_ptr, start, num_listed, vocab_size, GROUP: tl.constexpr, BLOCK: tl.constexpr
):
    """The logits of a block of listed groups; -inf past the last one."""
    place = start + tl.arange(0, BLOCK)
    exists = place < num_listed * GROUP
    token = tl.load(list_ptr + place // GROUP, mask=exists, other=0) * GROUP + place % GROUP
    return load_logits(logits_ptr, edited_ptr, is_edited, token, exists & (token < vocab_size))


@triton.jit
def _search(
    logits_ptr, edited_ptr, is_edited, list_ptr, num_listed, vocab_size, least, peak, scale, target,
    COUNT: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The largest logit x for which the tokens from x on are `target` (number if `COUNT`, else mass) or more.

    Logits below `least` do not exist; without so much in all of them, the answer is `least`.
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
        for start in range(0, num_listed * GROUP, BLOCK):
            x = _load_listed(logits_ptr, edited_ptr, is_edited, list_ptr, start, num_listed, vocab_size, GROUP, BLOCK)
            weight = tl.full([BLOCK], 1.0, tl.float32) if COUNT else tl.exp((x - peak) * scale)
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
    threshold_ptr, list_ptr, maxima_ptr, logits_ptr, edited_ptr, kind_ptr, temperature_ptr, top_k_ptr, top_p_ptr,
    log_min_p_ptr, vocab_size, stride_row, num_groups,
    GROUPS_PAD: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, HALVINGS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    kind = tl.load(kind_ptr + row).to(tl.int32)
    least = -float("inf")
    if (kind & FILTERS) != 0:
        is_edited = (kind & EDITS) != 0
        logits_ptr += row * stride_row
        edited_ptr += row * vocab_size
        list_ptr += row * num_groups
        temperature = tl.load(temperature_ptr + row)
        scale = 1.0 / temperature
        group = tl.arange(0, GROUPS_PAD)
        maxima = tl.load(maxima_ptr + row * num_groups + group, mask=group < num_groups, other=-float("inf"))
        peak = tl.max(maxima, 0)
        # A bias of minus infinity bans all, or a logit is not finite: then nothing is searched.
        if (peak - peak) == 0.0:
            least = peak + tl.maximum(-_HOPELESS, tl.load(log_min_p_ptr + row)) * temperature
            least = tl.maximum(least, -3e38)  # where the temperature is infinite
            top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
            if top_k > 0:
                # With k maxima above some value, the k-th largest logit is above it too.
                low, high = least, peak
                for _ in range(HALVINGS):
                    middle = low + (high - low) * 0.5
                    enough = tl.sum((maxima > middle).to(tl.float32), 0) >= top_k
                    low = tl.where(enough, middle, low)
                    high = tl.where(enough, high, middle)
                num_listed = _list_groups(list_ptr, maxima, low)
                least = _search(
                    logits_ptr, edited_ptr, is_edited, list_ptr, num_listed, vocab_size, low, peak, scale, top_k,
                    COUNT=True, GROUP=GROUP, BLOCK=BLOCK,
                )  # fmt: skip
            if top_p < 1:
                num_listed = _list_groups(list_ptr, maxima, least)
                mass_b = tl.zeros([BLOCK], tl.float32)
                for start in range(0, num_listed * GROUP, BLOCK):
                    x = _load_listed(
                        logits_ptr, edited_ptr, is_edited, list_ptr, start, num_listed, vocab_size, GROUP, BLOCK
                    )
                    mass_b += tl.where(x >= least, tl.exp((x - peak) * scale), 0.0)
                mass = tl.sum(mass_b, 0)
                # All tokens below this together have less than what the nucleus leaves out.
                bound = peak + (tl.log((1 - top_p) * mass / vocab_size) - 0.01) * temperature
                least = tl.maximum(least, bound)
                num_listed = _list_groups(list_ptr, maxima, least)
                least = _search(
                    logits_ptr, edited_ptr, is_edited, list_ptr, num_listed, vocab_size, least, peak, scale,
                    top_p * mass, COUNT=False, GROUP=GROUP, BLOCK=BLOCK,
                )  # fmt: skip
    tl.store(threshold_ptr + row, least)


def least_kept(logits_RV: Tensor, edited_RV: Tensor, params: RowParams) -> Tensor:
    """[R] float32: the least logit that a row's filters keep, equal ones included; -inf for rows without filters.

    Min-p first, then top-k over what is left, then top-p over what is left of that, renormalised.

    Args:
        logits_RV: any float dtype, only read; rows may be strided.
        edited_RV: float32, contiguous, read in its place for rows of kind `EDITS`.
    """
    num_rows, vocab_size = logits_RV.shape
    device = logits_RV.device
    num_groups = triton.cdiv(vocab_size, _GROUP)
    threshold_R = torch.empty(num_rows, dtype=torch.float32, device=device)
    maxima = torch.empty(num_rows, num_groups, dtype=torch.float32, device=device)
    listed = torch.empty(num_rows, num_groups, dtype=torch.int32, device=device)
    _maxima_kernel[(triton.cdiv(num_groups, _GROUPS_PER_PROGRAM), num_rows)](
        maxima, logits_RV, edited_RV, params.kind_R, vocab_size, logits_RV.stride(0), num_groups,
        GROUPS=_GROUPS_PER_PROGRAM, GROUP=_GROUP, num_warps=4,
    )  # fmt: skip
    _threshold_kernel[(num_rows,)](
        threshold_R, listed, maxima, logits_RV, edited_RV, params.kind_R, params.temperature_R, params.top_k_R,
        params.top_p_R, params.log_min_p_R, vocab_size, logits_RV.stride(0), num_groups,
        GROUPS_PAD=triton.next_power_of_2(num_groups), GROUP=_GROUP, BLOCK=_BLOCK, HALVINGS=_HALVINGS, num_warps=16,
    )  # fmt: skip
    return threshold_R
