"""The exact distribution that sampling parameters describe, in float64, and how to compare draws with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from framework.conformance.checks.sampler import MIN_P_VALUE, chi_square_p
from framework.interfaces.sampler import Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams

__all__ = ["MIN_P_VALUE", "chi_square_p", "draw", "exact_probs", "history_of"]


def history_of(prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> TokenHistory:
    """Rows of the given tokens; positions that hold none are filled with ids that exist nowhere."""
    rows = [[*prompt, *output] for prompt, output in zip(prompts, outputs, strict=True)]
    token_ids_RL = torch.full((len(rows), max(map(len, rows)) + 3), 2**31 - 1, dtype=torch.int32)
    for row, tokens in enumerate(rows):
        token_ids_RL[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
    return TokenHistory.of_rows(
        token_ids_RL=token_ids_RL,
        num_prompt_R=torch.tensor([len(prompt) for prompt in prompts]),
        num_tokens_R=torch.tensor([len(row) for row in rows]),
    )


def exact_probs(
    logits_V: np.ndarray, params: SamplingParams, prompt: Sequence[int] = (), output: Sequence[int] = ()
) -> np.ndarray:
    """The documented order, a token at a time. For logits without ties and temperatures above 0."""
    x = logits_V.astype(np.float64).copy()
    for token, value in params.logit_bias.items():
        x[token] += value
    for token in set(prompt) | set(output):
        x[token] = x[token] / params.repetition_penalty if x[token] > 0 else x[token] * params.repetition_penalty
    for token in set(output):
        x[token] -= params.frequency_penalty * list(output).count(token) + params.presence_penalty
    probs = _softmax(x / params.temperature)
    if params.min_p:
        probs = np.where(probs >= params.min_p * probs.max(), probs, 0)
    order = np.argsort(-probs, kind="stable")
    if params.top_k:
        probs[order[params.top_k :]] = 0
    probs /= probs.sum()
    if params.top_p < 1:
        size = 1
        while probs[order[:size]].sum() < params.top_p:
            size += 1
        probs[order[size:]] = 0
    return probs / probs.sum()


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def draw(
    sampler: Sampler,
    logits_V: np.ndarray,
    params: SamplingParams,
    num_draws: int,
    prompt: Sequence[int] = (0,),
    output: Sequence[int] = (),
    seed: int = 1234,
) -> np.ndarray:
    """How often each token came, over one request's positions 1 to `num_draws`; [V]."""
    logits_RV = torch.tensor(logits_V, dtype=torch.float32).repeat(num_draws, 1)
    one = history_of([prompt], [output])
    history = TokenHistory.of_rows(
        token_ids_RL=one.token_ids_RL.repeat(num_draws, 1),
        num_prompt_R=one.num_prompt_R.repeat(num_draws),
        num_tokens_R=one.num_tokens_R.repeat(num_draws),
    )
    prepared = sampler.prepare([params] * num_draws)
    seed_R, position_R = torch.full((num_draws,), seed), torch.arange(1, num_draws + 1)
    tokens_R = sampler.sample(logits_RV, prepared, seed_R, position_R, history)
    assert tokens_R.dtype == torch.int64
    assert tokens_R.shape == (num_draws,)
    return np.bincount(tokens_R.numpy(), minlength=len(logits_V))
