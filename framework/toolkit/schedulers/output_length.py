"""How many tokens a request will still produce, as far as a scheduler is meant to know."""

from __future__ import annotations

import random
from typing import Literal

from framework.interfaces.scheduler import RequestView

Predictor = Literal["none", "oracle", "noisy"]


class OutputLength:
    """Predicts output lengths, the unknown in every shortest-job policy.

    `none` predicts 0. `oracle` is the true length, which the scheduler has to ask for: it sets its own `oracle` to
    `asks` and passes on what `on_true_length` brings. Where no workload states lengths that is the request's limit, an
    upper bound. `noisy` multiplies it by a log-normal factor of median 1 whose logarithm has the standard deviation
    `error`; the factor is a function of (seed, request id) alone.

    Raises:
        ValueError: the predictor is unknown, or `error` is negative.
    """

    def __init__(self, predictor: Predictor, *, error: float, seed: int) -> None:
        if predictor not in ("none", "oracle", "noisy"):
            raise ValueError(f"scheduler.predictor={predictor!r} does not exist; choose from none, oracle, noisy")
        if not 0 <= error < float("inf"):
            raise ValueError(f"scheduler.error={error} must be a finite number, at least 0")
        self.predictor, self.error, self.seed = predictor, error, seed
        self.asks = predictor != "none"
        """Whether it needs true lengths."""
        self._true: dict[int, int] = {}

    def learn(self, request: RequestView, num_output: int) -> None:
        """What `Scheduler.on_true_length` was told."""
        self._true[request.id] = num_output

    def forget(self, request: RequestView) -> None:
        """`request` has ended."""
        self._true.pop(request.id, None)

    def remaining(self, request: RequestView) -> float:
        """The predicted number of tokens that are still to be produced; at least 1 unless the predictor is `none`."""
        if self.predictor == "none":
            return 0.0
        total = float(self._true[request.id])
        if self.predictor == "noisy":
            total *= random.Random(f"{self.seed}/{request.id}").lognormvariate(0.0, self.error)
        return max(1.0, total - request.num_output)
