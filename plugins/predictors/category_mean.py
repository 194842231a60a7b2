"""The mean length of the answers to requests of the same category: one number per kind of request."""

from math import exp

from framework.interfaces.predictor import LengthDistribution, Predictor
from framework.interfaces.scheduler import RequestView
from framework.registry import PREDICTORS
from framework.toolkit.predictors.lengths import LogNormalLength


@PREDICTORS.register("category_mean")
class CategoryMean(Predictor):
    """Mean and variance per category, learned from the requests that have ended (Welford's method), with a log-normal
    shape. The mean starts as `initial_tokens`, which counts as one request.

    Args:
        initial_tokens: the expected length before any request has ended.
        initial_sigma: standard deviation of the logarithm of a length, until three requests have ended; at most 10.
    """

    def __init__(self, *, initial_tokens: float = 256.0, initial_sigma: float = 1.0) -> None:
        for key, value in (("initial_tokens", initial_tokens), ("initial_sigma", initial_sigma)):
            if not 0 < value < float("inf"):
                raise ValueError(f"predictor.{key}={value} must be a finite number above 0")
        if initial_sigma > 10:
            raise ValueError(f"predictor.initial_sigma={initial_sigma} must be at most 10; lengths vary by exp of it")
        self.initial_tokens, self.initial_sigma = initial_tokens, initial_sigma
        self._seen: dict[str, tuple[int, float, float]] = {}
        """By category: requests, mean, and the sum of squared deviations from it."""

    def predict(self, request: RequestView) -> LengthDistribution:
        count, mean, squares = self._of(request)
        if count < 3:
            return LogNormalLength.of_moments(mean, (exp(self.initial_sigma**2) - 1) * mean**2)
        return LogNormalLength.of_moments(mean, squares / (count - 1))

    def on_finish(self, request: RequestView) -> None:
        count, mean, squares = self._of(request)
        count, off = count + 1, request.num_output - mean
        mean += off / count
        self._seen[request.category] = count, mean, squares + off * (request.num_output - mean)

    def _of(self, request: RequestView) -> tuple[int, float, float]:
        return self._seen.get(request.category, (1, self.initial_tokens, 0.0))
