"""How many tokens a request will still produce, as far as a scheduler is meant to know."""

from __future__ import annotations

from framework.interfaces.scheduler import RequestView


def remaining_tokens(request: RequestView) -> float:
    """The predicted number of tokens that are still to be produced: at least 1, or 0 with `predictor=none`."""
    predicted = request.predicted
    return 0.0 if predicted is None else max(1.0, predicted.mean - request.num_output)
