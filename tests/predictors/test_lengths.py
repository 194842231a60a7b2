"""Distributions of output lengths against scipy and against samples, before and after tokens have come."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import lognorm

from framework.toolkit.predictors.lengths import KnownLength, LogNormalLength, SampledLength

SHARES = (0.01, 0.1, 0.5, 0.9, 0.99)


@pytest.mark.parametrize(("median", "sigma"), [(200.0, 1.0), (30.0, 0.3), (900.0, 2.0)])
@pytest.mark.parametrize("num_output", [0, 10, 250, 2000])
def test_a_log_normal_length_is_that_of_scipy_cut_off(median: float, sigma: float, num_output: int) -> None:
    ours, theirs = LogNormalLength(median, sigma).above(num_output), lognorm(sigma, scale=median)
    left = theirs.sf(num_output)
    if left < 1e-9:
        assert (ours.mean, ours.quantile(0.9)) == (num_output + 1, num_output + 1)
        return
    beyond, _ = quad(lambda z: np.exp(z) * theirs.pdf(np.exp(z)) * np.exp(z), log(num_output + 1e-9), 25, limit=400)
    assert ours.mean == pytest.approx(max(beyond / left, num_output + 1), rel=1e-3)
    for share in SHARES:
        expected = max(theirs.isf((1 - share) * left), num_output + 1)
        assert ours.quantile(share) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("mean", "deviation"), [(100.0, 50.0), (3.0, 9.0), (50.0, 0.0)])
def test_moments_give_the_log_normal_length_of_that_mean(mean: float, deviation: float) -> None:
    made = LogNormalLength.of_moments(mean, deviation**2)
    theirs = lognorm(made.sigma, scale=made.median) if deviation else None
    assert made.mean == pytest.approx(mean)
    assert theirs is None or theirs.std() == pytest.approx(deviation)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30).map(sorted), st.integers(0, 70))
def test_a_sample_is_what_is_left_of_it(lengths: list[int], num_output: int) -> None:
    """Conditioning twice is conditioning once, and the sample itself stays."""
    left = [length for length in lengths if length > num_output] or [num_output + 1]
    sample = SampledLength(tuple(lengths))
    for now in (sample.above(num_output), sample.above(num_output // 2).above(num_output)):
        assert now.mean == pytest.approx(np.mean(left))
        for share in SHARES:
            assert sum(one <= now.quantile(share) for one in left) >= share * len(left)
            assert now.quantile(share) in left
            assert sum(one < now.quantile(share) for one in left) <= share * len(left)
    assert sample.mean == pytest.approx(np.mean(lengths))


def test_a_known_length_that_was_passed_is_the_next_token() -> None:
    known = KnownLength(8)
    assert [(known.above(n).mean, known.above(n).quantile(0.9)) for n in (0, 7, 8, 20)] == [
        (8, 8), (8, 8), (9, 9), (21, 21)
    ]  # fmt: skip
