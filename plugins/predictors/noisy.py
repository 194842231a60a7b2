"""The true length with an error of a stated size: how good a predictor has to be."""

import random

from framework.interfaces.predictor import LengthDistribution, Predictor
from framework.interfaces.scheduler import RequestView
from framework.registry import PREDICTORS
from framework.toolkit.predictors.lengths import LogNormalLength


@PREDICTORS.register("noisy")
class Noisy(Predictor):
    """The true length times a log-normal factor of median 1, with that error as its spread: the truth lies within the
    predicted quantiles as often as they say. The factor is a function of (seed, request id) alone. It is an oracle, and
    the record names it.

    Args:
        error: standard deviation of the logarithm of the factor, at most 10.
        seed: the seed of the factors.
    """

    oracle = True

    def __init__(self, *, error: float = 0.5, seed: int = 0) -> None:
        if not 0 <= error <= 10:
            raise ValueError(f"predictor.error={error} must be from 0 to 10; predictions err by exp of it")
        self.error, self.seed = error, seed
        self._num_output = 0

    def on_true_length(self, request: RequestView, num_output: int) -> None:
        self._num_output = num_output

    def predict(self, request: RequestView) -> LengthDistribution:
        factor = random.Random(f"{self.seed}/{request.id}").lognormvariate(0.0, self.error)
        return LogNormalLength(median=max(1.0, self._num_output * factor), sigma=self.error)
