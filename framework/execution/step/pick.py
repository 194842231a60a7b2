"""From logits to tokens, whether every rank has all of them or each only those of its part of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from framework.interfaces.sampler import Sampler, TokenHistory
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
    """[R] int64 token ids, the same on every rank. Where logits are split, a score and an id a rank are exchanged."""
    if not head.split:
        return sampler.sample(logits_RV, prepared, seed_R, position_R, history)
    score_R, token_R = sampler.sample_shard(logits_RV, prepared, seed_R, position_R, head.first_token)
    pair_1R2 = torch.stack([score_R.double(), token_R.double()], -1).unsqueeze(0)  # ids are exact in float64
    score_GR, token_GR = head.group.all_gather(pair_1R2, dim=0).unbind(-1)
    is_best_GR = score_GR == score_GR.amax(0)
    return token_GR.masked_fill(~is_best_GR, float(head.vocab_size)).amin(0).long()  # the lowest id among equals


def whole_rows(head: ParallelLMHead) -> Callable[[Tensor], Tensor] | None:
    """What makes [R, V] of the logits that `head` gives; None if they are whole."""
    return head.gather if head.split else None
