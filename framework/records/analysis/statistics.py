"""Means, differences and their 95 % intervals, after Student (1908) and Welch (1947); Holm's correction (1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t alone: scipy.stats takes a second to import

MIN_SEEDS = 5
"""With fewer seeds no interval is given, since it would say more about itself than about the mean."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or a difference of means. `low`, `high` and `p` (two-sided, of "it is 0") are None where undefined."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def is_noise(self) -> bool | None:
        """Whether the interval holds 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0.0 <= self.high


def mean(values: Sequence[float], min_n: int = MIN_SEEDS) -> Estimate:
    """Mean of independent repeats, at least one, with its t interval if there are `min_n` (never below 2)."""
    x = np.asarray(values, dtype=np.float64)
    return _student(float(x.mean()), _standard_error(x), x.size - 1, enough=x.size >= max(2, min_n))


def paired_difference(values: Sequence[float], baseline: Sequence[float], min_n: int = MIN_SEEDS) -> Estimate:
    """Mean of `values[i] - baseline[i]`. What differs between pairs, but not within them, is not noise here.

    Raises:
        ValueError: the two differ in length.
    """
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} values and {len(baseline)} of the baseline are no pairs")
    return mean(np.subtract(values, baseline).tolist(), min_n)


def welch_difference(values: Sequence[float], baseline: Sequence[float], min_n: int = MIN_SEEDS) -> Estimate:
    """Difference of the means of two independent samples with variances of their own."""
    x, y = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    enough = min(x.size, y.size) >= max(2, min_n)
    difference = float(x.mean() - y.mean())
    if not enough:
        return Estimate(difference)
    variances = _standard_error(x) ** 2, _standard_error(y) ** 2
    total = sum(variances)
    # Welch-Satterthwaite; with no variance at all any number of degrees gives an interval of width 0
    degrees = total**2 / (variances[0] ** 2 / (x.size - 1) + variances[1] ** 2 / (y.size - 1)) if total else 1.0
    return _student(difference, math.sqrt(total), degrees, enough=True)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p values that keep the chance of any false "differs" below the level. None stays None, uncounted."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = largest
    return adjusted


def _standard_error(x: np.ndarray) -> float:
    if x.size < 2:
        return math.nan
    # Rounding of equal numbers is no variance: deterministic runs repeat to the last bit but for the mean's own error.
    spread = float(x.max() - x.min())
    if spread <= 4 * np.finfo(np.float64).eps * float(np.abs(x).max()):
        return 0.0
    return float(x.std(ddof=1)) / math.sqrt(x.size)


def _student(value: float, standard_error: float, degrees: float, *, enough: bool) -> Estimate:
    if not enough:
        return Estimate(value)
    if standard_error == 0.0:
        return Estimate(value, value, value, 1.0 if value == 0.0 else 0.0)
    half = float(stdtrit(degrees, (1 + CONFIDENCE) / 2)) * standard_error
    p = 2 * float(stdtr(degrees, -abs(value) / standard_error))
    return Estimate(value, value - half, value + half, p)
