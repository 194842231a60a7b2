"""The true length: the upper bound of what any predictor is worth."""

from framework.interfaces.predictor import LengthDistribution, Predictor
from framework.interfaces.scheduler import RequestView
from framework.registry import PREDICTORS
from framework.toolkit.predictors.lengths import KnownLength


@PREDICTORS.register("oracle")
class Oracle(Predictor):
    """What no engine in service knows. The record names it (`effective.oracle`). Where no workload states a true length
    it is the most that the request may produce.
    """

    oracle = True

    def __init__(self) -> None:
        self._num_output = 0

    def on_true_length(self, request: RequestView, num_output: int) -> None:
        self._num_output = num_output

    def predict(self, request: RequestView) -> LengthDistribution:
        return KnownLength(self._num_output)
