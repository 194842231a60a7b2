"""Distributions of output lengths: a known one, a log-normal one, and one that a sample of lengths makes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import erfc, exp, log, sqrt
from statistics import NormalDist

from framework.interfaces.predictor import LengthDistribution

_NORMAL = NormalDist()
_LEAST = 1e-12
"""Probabilities below this are too small to condition on in floating point."""


class KnownLength(LengthDistribution):
    """All probability on one length, or on the next token once that length has been passed."""

    __slots__ = ("num_tokens",)

    def __init__(self, num_tokens: float) -> None:
        self.num_tokens = num_tokens

    @property
    def mean(self) -> float:
        return self.num_tokens

    def quantile(self, share: float) -> float:
        return self.num_tokens

    def above(self, num_output: int) -> KnownLength:
        return self if self.num_tokens > num_output else KnownLength(num_output + 1)


class LogNormalLength(LengthDistribution):
    """A length whose logarithm is normal, cut off below what has been produced. Answers to real prompts have about that
    shape: many short ones, and a long tail.

    Args:
        median: of the length, above 0.
        sigma: standard deviation of its logarithm, at least 0.
        num_output: tokens that have been produced.
    """

    __slots__ = ("_mu", "_num_output", "_tail", "median", "sigma")

    def __init__(self, median: float, sigma: float, num_output: int = 0) -> None:
        self.median, self.sigma, self._num_output = median, sigma, num_output
        self._mu = log(median)
        self._tail = 1.0 if num_output == 0 else self._above(num_output)

    @classmethod
    def of_moments(cls, mean: float, variance: float) -> LogNormalLength:
        """The one with this mean and variance."""
        sigma = sqrt(log(1 + variance / mean**2))
        return cls(mean * exp(-(sigma**2) / 2), sigma)

    @property
    def mean(self) -> float:
        least = self._num_output + 1
        if self._tail < _LEAST:
            return float(least)
        whole = self.median * exp(self.sigma**2 / 2)
        if self._num_output == 0:
            return max(whole, 1.0)
        if self.sigma == 0:
            return max(self.median, least)
        beyond = 0.5 * erfc(((log(self._num_output) - self._mu) / self.sigma - self.sigma) / sqrt(2))
        return max(whole * beyond / self._tail, least)

    def quantile(self, share: float) -> float:
        least = self._num_output + 1
        if self._tail < _LEAST or self.sigma == 0:
            return max(self.median if self._tail >= _LEAST else 0.0, least)
        left = (1 - share) * self._tail
        return max(exp(self._mu - self.sigma * _NORMAL.inv_cdf(max(left, _LEAST / 2))), least)

    def above(self, num_output: int) -> LogNormalLength:
        return LogNormalLength(self.median, self.sigma, num_output)

    def _above(self, num_tokens: int) -> float:
        if self.sigma == 0:
            return 1.0 if self.median > num_tokens else 0.0
        return 0.5 * erfc((log(num_tokens) - self._mu) / (self.sigma * sqrt(2)))


class SampledLength(LengthDistribution):
    """Every length of a sample with equal probability. A step takes O(log n), as `above` shares the sample.

    Args:
        lengths: the sample, sorted and not empty.
    """

    __slots__ = ("_first", "_lengths", "_num_output", "_sums")

    def __init__(self, lengths: Sequence[int], num_output: int = 0, sums: Sequence[int] | None = None) -> None:
        self._lengths, self._num_output = lengths, num_output
        self._sums = list(accumulate(lengths)) if sums is None else sums
        self._first = bisect_right(lengths, num_output)
        """The first length that is still possible."""

    @property
    def mean(self) -> float:
        num_left = len(self._lengths) - self._first
        if not num_left:
            return float(self._num_output + 1)
        before = self._sums[self._first - 1] if self._first else 0
        return (self._sums[-1] - before) / num_left

    def quantile(self, share: float) -> float:
        num_left = len(self._lengths) - self._first
        if not num_left:
            return float(self._num_output + 1)
        return float(self._lengths[self._first + min(int(share * num_left), num_left - 1)])

    def above(self, num_output: int) -> SampledLength:
        return SampledLength(self._lengths, num_output, self._sums)
