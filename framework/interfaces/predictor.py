"""The predictor: how long the answer of a request will be, as a distribution, before anybody knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from framework.interfaces.scheduler import RequestView


class LengthDistribution(ABC):
    """A belief about the number of output tokens that a request will have had at its end. It does not change.

    `framework.toolkit.predictors` has the usual ones: a known length, a log-normal one, and a sample of lengths.
    """

    @property
    @abstractmethod
    def mean(self) -> float:
        """The expected number of output tokens: finite, and above what has been produced."""

    @abstractmethod
    def quantile(self, share: float) -> float:
        """The number of tokens that is not exceeded with probability `share`, which is above 0 and below 1. A larger
        share gives no smaller number."""

    @abstractmethod
    def above(self, num_output: int) -> LengthDistribution:
        """The same belief once `num_output` tokens have been produced and the request has not ended, so that its
        length is at least `num_output` + 1."""


class Predictor(ABC):
    """Predicts output lengths for one engine. A scheduler reads them as `RequestView.predicted`.

    It knows what a server could know of a request: its prompt (`prompt_token_ids`, or `prompt_keys` in a simulation of
    a trace), and what its sender states, such as `category`, `client` and `spec.session`. The same requests in the same
    order get the same predictions.

    Plugins register with `@PREDICTORS.register("name")` and take keyword-only, annotated parameters.
    """

    oracle: ClassVar[bool] = False
    """Whether it asks for true output lengths, which no engine in service knows. The record says so
    (`effective.oracle`)."""

    def on_true_length(self, request: RequestView, num_output: int) -> None:
        """For an `oracle` only, right before `predict`: `request` will produce `num_output` tokens. Where no workload
        states a length, this is the most that it may produce."""

    @abstractmethod
    def predict(self, request: RequestView) -> LengthDistribution:
        """The prediction at the arrival of `request`. The record compares it with what comes out."""

    def update(self, request: RequestView, at_arrival: LengthDistribution) -> LengthDistribution:
        """The prediction now that `request.num_output` tokens have come, given the one at its arrival. It is called
        when a policy asks, at most once per token of a request."""
        return at_arrival.above(request.num_output)

    def on_finish(self, request: RequestView) -> None:
        """`request` has come to its own end after `request.num_output` tokens: what there is to learn from. It is not
        called for requests that were aborted, or that failed."""
