"""Runs a sampler as the engine does, on rows made up for a check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from framework.interfaces.sampler import Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams


def sample_rows(
    sampler: Sampler,
    logits_RV: Tensor,
    params: list[SamplingParams],
    seeds: list[int],
    *,
    one_request: bool = False,
    prepared: Any = None,
    text: Sequence[int] = (),
) -> Tensor:
    """[R] tokens. Each row continues a short text of its own; as `one_request`, the rows are its successive positions.

    Args:
        text: five tokens that every row continues in place of its own text. The first three are the prompt.
    """
    num_rows, device = len(params), sampler.device
    positions = list(range(1, num_rows + 1)) if one_request else [5] * num_rows
    texts = [list(text) or [1, 2, 3 + seed % 7, 1, 4] for seed in seeds]
    history = TokenHistory.of_rows(
        token_ids_RL=torch.tensor(texts, dtype=torch.int32, device=device) % sampler.vocab_size,
        num_prompt_R=torch.full((num_rows,), 3, device=device),
        num_tokens_R=torch.full((num_rows,), 5, device=device),
    )
    prepared = sampler.prepare(params) if prepared is None else prepared
    about = torch.tensor(seeds, device=device), torch.tensor(positions, device=device), history
    token_R = sampler.sample(logits_RV.to(device, copy=True), prepared, *about)
    if any(sampler.redraws(one) for one in params):
        token_R = sampler.redraw(logits_RV.to(device, copy=True), prepared, *about, token_R)
    return token_R
