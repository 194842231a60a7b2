"""Quality of tokens: divergences against scipy's, shares against plain counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from framework.interfaces.executor import TokenLogprobs
from framework.records.metrics.quality import answer_statistics, attention_note, kl_nats, perplexity


def entry(logprobs_V: np.ndarray, num_top: int) -> TokenLogprobs:
    order = np.argsort(-logprobs_V)[:num_top]
    return TokenLogprobs(0, float(logprobs_V[0]), [(int(token), float(logprobs_V[token])) for token in order])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3), st.integers(1, 40), st.integers(1, 40))
def test_the_divergence_is_a_lower_bound_and_exact_with_all_tokens(
    seed: int, scale: float, few: int, other: int
) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, 40), draw.normal(0, scale, 40)
    p_V, q_V = (x - np.log(np.exp(x).sum()) for x in (logits[0], logits[0] + logits[1]))
    want = float(entry_kl(p_V, q_V))
    assert kl_nats(entry(p_V, 40), entry(q_V, 40)) == pytest.approx(want, abs=1e-6)
    assert 0 <= kl_nats(entry(p_V, few), entry(q_V, other)) <= want + 1e-6


def entry_kl(p_V: np.ndarray, q_V: np.ndarray) -> float:
    return float(entropy(np.exp(p_V), np.exp(q_V)))


def test_perplexity_of_equal_chances_is_their_number() -> None:
    assert perplexity([math.log(1 / 7)] * 5) == pytest.approx(7)
    assert perplexity([-1e6]) == math.inf


def test_shares_of_new_and_repeated_tokens() -> None:
    got = answer_statistics([[1, 2, 1, 2, 1, 2, 1], [5], []])
    assert got["distinct_1"] == pytest.approx((2 / 7 + 1) / 2)
    assert got["distinct_2"] == pytest.approx(2 / 6)
    assert got["repetition_fraction"] == pytest.approx(1 - 2 / 4)
    assert answer_statistics([]) == {"distinct_1": None, "distinct_2": None, "repetition_fraction": None}


def test_a_cell_that_was_cut_off_says_that_nothing_was_measured() -> None:
    effective = {"attention": "window", "attention_exact": False}
    assert attention_note(effective, {}) == "attention=window is not exact, and its quality was not measured"
    assert attention_note({"attention": "sdpa"}, {}) == ""
