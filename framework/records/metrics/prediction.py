"""How good the predicted output lengths were: their error, their calibration, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from framework.interfaces.records import RequestRecord

Spread = Callable[[str, Iterable[float]], dict[str, float | int | None]]


def prediction_metrics(completed: Sequence[RequestRecord], spread: Spread) -> dict[str, float | int | None]:
    """What the predictor expected at arrivals against what came out, over requests that came to their own end.

    - `length_error_tokens/...`: the distance between the predicted mean and the length.
    - `length_bias_tokens`: the mean of predicted mean minus length; above 0 where answers were shorter than expected.
    - `length_coverage/p50`, `/p90`: the share of lengths within the predicted quantile. A calibrated predictor has 0.5
      and 0.9, and more where many lengths are equal to the quantile.
    - `length_rank_correlation`: Kendall's tau-b between predicted means and lengths; 1 if they have the same order.

    All are None without predictions, and the correlation also where all lengths, or all predictions, are equal.
    """
    rows = [r for r in completed if r.predicted_tokens is not None]
    predicted, p50, p90 = (
        np.array([getattr(r, name) for r in rows], dtype=np.float64)
        for name in ("predicted_tokens", "predicted_p50", "predicted_p90")
    )
    lengths = np.array([r.num_output_tokens for r in rows], dtype=np.float64)
    metrics = spread("length_error_tokens", np.abs(predicted - lengths))
    metrics["length_bias_tokens"] = float(np.mean(predicted - lengths)) if rows else None
    metrics["length_coverage/p50"] = float(np.mean(lengths <= p50)) if rows else None
    metrics["length_coverage/p90"] = float(np.mean(lengths <= p90)) if rows else None
    metrics["length_rank_correlation"] = _kendall(predicted, lengths)
    return metrics


def _kendall(predicted: np.ndarray, lengths: np.ndarray) -> float | None:
    if len(lengths) < 2 or np.all(predicted == predicted[0]) or np.all(lengths == lengths[0]):
        return None
    from scipy.stats import kendalltau  # takes half a second to load, for runs with a predictor only

    return float(kendalltau(predicted, lengths).statistic)
