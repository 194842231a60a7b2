"""Picks tokens from logits. Every rank has all logits, or only those of its part of the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from framework.interfaces.errors import PluginError
from framework.interfaces.sampler import NOT_FINITE, Sampler, TokenHistory
from framework.models.layers.embedding import ParallelLMHead


def pick_tokens(
    head: ParallelLMHead,
    sampler: Sampler,
    logits_RV: Tensor,
    prepared: Any,
    seed_R: Tensor,
    position_R: Tensor,
    history: TokenHistory,
) -> Tensor:
    """[R] int64 token ids, the same on every rank. Where logits are split, a score and an id per rank are exchanged.

    A row with a logit that is not finite, on whichever rank, gets `NOT_FINITE`.

    Raises:
        PluginError: the sampler returned another shape.
    """
    bad_R = None if sampler.checks_finite else not_finite_rows(logits_RV)
    if not head.split:
        token_R = _checked(sampler, sampler.sample(logits_RV, prepared, seed_R, position_R, history), position_R)
        return token_R if bad_R is None else token_R.masked_fill(bad_R, NOT_FINITE)
    score_R, token_R = sampler.sample_shard(logits_RV, prepared, seed_R, position_R, head.first_token)
    if bad_R is not None:
        score_R, token_R = score_R.masked_fill(bad_R, math.inf), token_R.masked_fill(bad_R, NOT_FINITE)
    pair_1R2 = torch.stack([score_R.double(), token_R.double()], -1).unsqueeze(0)  # ids are exact in float64
    score_GR, token_GR = head.group.all_gather(pair_1R2, dim=0).unbind(-1)
    is_best_GR = score_GR == score_GR.amax(0)
    return token_GR.masked_fill(~is_best_GR, float(head.vocab_size)).amin(0).long()  # the lowest id among equals


def redraw_tokens(
    head: ParallelLMHead,
    sampler: Sampler,
    logits_RV: Tensor,
    prepared: Any,
    seed_R: Tensor,
    position_R: Tensor,
    history: TokenHistory,
    token_R: Tensor,
) -> Tensor:
    """The `token_R` of `pick_tokens`, with new tokens in the rows that `sampler.redraws`."""
    whole_RV = head.gather(logits_RV) if head.split else logits_RV
    drawn_R = sampler.redraw(whole_RV, prepared, seed_R, position_R, history, token_R)
    return _checked(sampler, drawn_R, position_R)


def not_finite_rows(logits_RV: Tensor) -> Tensor:
    """[R] bool: which rows hold a NaN or infinite logit."""
    if logits_RV.is_cuda:
        from framework.execution.kernels.cuda.sampling.finite import not_finite_rows as fused_not_finite_rows

        return fused_not_finite_rows(logits_RV)
    bad_R = ~logits_RV.sum(-1, dtype=torch.float32).isfinite()  # a tenth of the time of looking at each
    if bad_R.any():  # unless the sum alone was too large
        bad_R[bad_R.clone()] = ~logits_RV[bad_R].isfinite().all(-1)
    return bad_R


def whole_rows(head: ParallelLMHead) -> Callable[[Tensor], Tensor] | None:
    """The function that makes [R, V] of the logits that `head` gives; None if they are whole."""
    return head.gather if head.split else None


def _checked(sampler: Sampler, token_R: Tensor, position_R: Tensor) -> Tensor:
    if token_R.shape != position_R.shape:
        raise PluginError(
            f"sampler {type(sampler).__name__} returned shape {tuple(token_R.shape)} for {len(position_R)} rows; "
            f"the rule is one token id per row"
        )
    return token_R
