"""Intervals and p values equal scipy's, cover what they promise, and hold where scipy divides by zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from framework.records.analysis.statistics import MIN_SEEDS, Estimate, holm, mean, paired_difference, welch_difference

RNG = np.random.default_rng(3)
X, Y = RNG.normal(10, 2, 7).tolist(), RNG.normal(11, 4, 9).tolist()


def same(estimate: Estimate, result: object, value: float) -> None:
    interval = result.confidence_interval(0.95)
    assert estimate.value == pytest.approx(value)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert estimate.p == pytest.approx(result.pvalue)


def test_mean() -> None:
    same(mean(X), stats.ttest_1samp(X, 0), np.mean(X))


def test_paired_difference() -> None:
    same(paired_difference(X, Y[:7]), stats.ttest_rel(X, Y[:7]), np.mean(X) - np.mean(Y[:7]))


def test_welch_difference() -> None:
    same(welch_difference(X, Y), stats.ttest_ind(X, Y, equal_var=False), np.mean(X) - np.mean(Y))


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_covers_the_truth_19_times_of_20(paired: bool) -> None:
    rng, repeats = np.random.default_rng(7), 4000
    samples = rng.normal(3, 2, (repeats, MIN_SEEDS))
    shared = rng.normal(0, 10, (repeats, MIN_SEEDS))  # what a seed does to both sides
    covered = widths = 0.0
    for x, seed in zip(samples, shared, strict=True):
        estimate = paired_difference((x + seed).tolist(), seed.tolist()) if paired else mean(x.tolist())
        covered += estimate.low <= 3 <= estimate.high
        widths += estimate.high - estimate.low
    assert covered / repeats == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / repeats))
    assert widths / repeats < 6  # pairing removed the seeds' share: 10 would give some 25


def test_few_repeats_have_no_interval() -> None:
    assert mean([1.0, 2.0, 3.0, 4.0]) == Estimate(2.5)
    assert mean([1.0], min_n=1) == Estimate(1.0)
    assert welch_difference([1.0, 2.0, 3.0, 4.0, 5.0], [1.0]) == Estimate(2.0)


def test_without_variance() -> None:
    rounded = mean([0.3] * 5 + [0.1 + 0.2])
    assert rounded.low == rounded.high == pytest.approx(0.3)
    same_all = paired_difference([1.0] * 5, [1.0] * 5)
    assert (same_all.value, same_all.low, same_all.high, same_all.p) == (0, 0, 0, 1)
    apart = paired_difference([0.3, 0.4, 0.5, 0.6, 0.7], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert apart.p == pytest.approx(0.0, abs=1e-6)
    assert (apart.low, apart.high) == pytest.approx((0.2, 0.2))
    assert welch_difference([1.0] * 5, [2.0] * 5) == Estimate(-1.0, -1.0, -1.0, 0.0)


def test_pairs_need_partners() -> None:
    with pytest.raises(ValueError, match="2 values and 1 of the baseline"):
        paired_difference([1.0, 2.0], [1.0])


def step_down(p_values: list[float], level: float) -> set[int]:
    """Holm (1979) by its text: from the smallest p on, reject while p <= level / (tests left)."""
    rejected: set[int] = set()
    for i in sorted(range(len(p_values)), key=p_values.__getitem__):
        if p_values[i] > level / (len(p_values) - len(rejected)):
            break
        rejected.add(i)
    return rejected


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    for _ in range(50):
        p_values = (RNG.random(8) ** 4).tolist()
        adjusted = holm(p_values)
        for level in (0.01, 0.05, 0.2):
            assert {i for i, p in enumerate(adjusted) if p is not None and p <= level} == step_down(p_values, level)
    assert holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]
