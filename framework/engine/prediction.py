"""What a predictor expects of one request: at its arrival for the record, and now for the policies that ask."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from framework.interfaces.errors import PluginError
from framework.interfaces.predictor import LengthDistribution, Predictor

if TYPE_CHECKING:
    from framework.engine.request import Request


class Prediction:
    """Nothing is computed between two questions: `now` brings it up to the tokens that have come since."""

    __slots__ = ("_at_arrival", "_known", "_now", "_num_output", "_predictor")

    def __init__(self, predictor: Predictor, request: Request) -> None:
        """
        Raises:
            PluginError: the predictor expects what is no number of tokens.
        """
        self._predictor, self._num_output = predictor, 0
        self._at_arrival = self._now = predictor.predict(request)
        mean, p50, p90 = (float(one) for one in (self._now.mean, self._now.quantile(0.5), self._now.quantile(0.9)))
        if not all(0 < value < inf for value in (mean, p50, p90)):
            raise PluginError(
                f"predictor {type(predictor).__name__}: of request {request.id} it expects mean={mean}, p50={p50}, "
                f"p90={p90} output tokens; each must be finite and above 0"
            )
        self._known = {"predicted_tokens": mean, "predicted_p50": p50, "predicted_p90": p90}

    def now(self, request: Request) -> LengthDistribution:
        """Given the tokens that `request` has."""
        if request.num_output != self._num_output:
            self._num_output = request.num_output
            self._now = self._predictor.update(request, self._at_arrival)
        return self._now

    def for_record(self) -> dict[str, Any]:
        """The fields of `RequestRecord` that it fills."""
        return self._known
