"""Draws follow the exact masked softmax; chi-square at fixed seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from framework.interfaces.sampling_params import SamplingParams
from plugins.samplers.full import Full
from plugins.samplers.gumbel import Gumbel
from tests.samplers.distribution import MIN_P_VALUE, chi_square_p, draw, exact_probs

V, DRAWS = 50, 20_000
CPU = torch.device("cpu")
LOGITS_V = np.random.default_rng(5).normal(0, 2, V).astype(np.float32)
PROMPT, OUTPUT = [3, 3, 8, 14], [8, 20, 20, 20, int(LOGITS_V.argmax())]


@pytest.mark.parametrize("sampler", [Gumbel, Full])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature(sampler: type[Gumbel | Full], temperature: float) -> None:
    params = SamplingParams(temperature=temperature)
    counts_V = draw(sampler(V, CPU), LOGITS_V, params, DRAWS)
    assert chi_square_p(counts_V, exact_probs(LOGITS_V, params)) > MIN_P_VALUE


@pytest.mark.parametrize(
    "values",
    [
        {"top_k": 1},
        {"top_k": 5},
        {"top_k": 10_000},
        {"top_p": 0.5},
        {"top_p": 0.95, "temperature": 1.7},
        {"top_p": 1e-6},
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"top_k": 12, "top_p": 0.6, "temperature": 1.5},
        {"min_p": 0.05, "top_k": 9, "top_p": 0.8},
        {"repetition_penalty": 1.8},
        {"repetition_penalty": 0.7, "temperature": 0.8},
        {"presence_penalty": 1.5},
        {"frequency_penalty": 0.9},
        {"frequency_penalty": -1.1, "presence_penalty": -0.4, "repetition_penalty": 1.3},
        {"logit_bias": {3: 4.0, 40: -100.0}},
        {"logit_bias": {8: 3.0}, "repetition_penalty": 1.5, "top_p": 0.9, "min_p": 0.01, "temperature": 1.4},
    ],
    ids=str,
)
def test_filters_and_penalties(values: dict[str, Any]) -> None:
    params = SamplingParams(**values)
    probs_V = exact_probs(LOGITS_V, params, PROMPT, OUTPUT)
    counts_V = draw(Full(V, CPU), LOGITS_V, params, DRAWS, PROMPT, OUTPUT)
    assert chi_square_p(counts_V, probs_V) > MIN_P_VALUE


def test_the_test_sees_a_small_error() -> None:
    """What the chi-square can tell apart: a temperature that is off by five percent."""
    counts_V = draw(Gumbel(V, CPU), LOGITS_V, SamplingParams(temperature=1.0), DRAWS)
    assert chi_square_p(counts_V, exact_probs(LOGITS_V, SamplingParams(temperature=1.05))) < MIN_P_VALUE


@pytest.mark.parametrize("seed", [0, -1, 2**62])
def test_another_seed_draws_from_the_same_distribution(seed: int) -> None:
    params = SamplingParams(top_p=0.9)
    counts_V = draw(Full(V, CPU), LOGITS_V, params, DRAWS, seed=seed)
    assert chi_square_p(counts_V, exact_probs(LOGITS_V, params)) > MIN_P_VALUE


def test_a_nucleus_wider_than_the_candidates_is_found() -> None:
    """V is larger than the shortcut's candidates, and the flat distribution needs most of the vocabulary."""
    logits_V = np.random.default_rng(6).normal(0, 0.3, 900).astype(np.float32)
    params = SamplingParams(top_p=0.9)
    counts_V = draw(Full(900, CPU), logits_V, params, 8_000)
    assert chi_square_p(counts_V, exact_probs(logits_V, params)) > MIN_P_VALUE
    assert (counts_V > 0).sum() > 600
