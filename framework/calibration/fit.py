"""From measured steps to a profile: a table for graphs of decode rows, non-negative least squares for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls

from framework.calibration.measure import Measured
from framework.interfaces.cost_model import StepShape
from framework.interfaces.step_profile import DecodeTable, FitError, HostTerms, LinearTerms

_KNOTS = (1, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_LAUNCH_MARGIN = 1.05
"""An eager step that takes hardly longer than its launches says nothing about the device's own work."""


def fit_decode(points: Sequence[Measured]) -> DecodeTable:
    """One row of the table for each number of padded rows."""
    by_rows: dict[int, list[tuple[int, float]]] = {}
    for point in points:
        by_rows.setdefault(point.shape.padded_rows, []).append((point.shape.decode_kv_tokens, point.run_s))
    rows = sorted(by_rows)
    columns = [sorted(by_rows[size]) for size in rows]
    return DecodeTable(
        rows=rows,
        kv_tokens=[[kv for kv, _ in column] for column in columns],
        seconds=[[seconds for _, seconds in column] for column in columns],
    )


def fit_linear(points: Sequence[Measured]) -> LinearTerms:
    """Relative errors are what is made small, so that short steps count as much as long ones."""
    largest = max(point.shape.padded_tokens for point in points)
    knots = [knot for knot in _KNOTS if knot < largest] + [largest]
    matrix = np.array([[*_hats(knots, point.shape.padded_tokens), *_work(point.shape)] for point in points])
    seconds = np.array([point.run_s for point in points])
    scale = np.maximum(matrix.max(axis=0), 1e-30)
    solution = nnls(matrix / scale / seconds[:, None], np.ones(len(points)), maxiter=100 * matrix.shape[1])[0] / scale
    return LinearTerms(
        knots=knots,
        # More tokens never take less time; a knot without points near it takes the last one's.
        knot_s=np.maximum.accumulate(solution[: len(knots)]).tolist(),
        **dict(zip(_WORK, solution[len(knots) :].tolist(), strict=True)),
    )


def fit_host(samples: Sequence[tuple[StepShape, float]], *, with_tokens: bool = False) -> HostTerms:
    """`samples` are shapes with host seconds."""
    rows = [
        [1.0, shape.num_rows, (shape.num_tokens - shape.num_decode_rows) if with_tokens else 0.0]
        for shape, _ in samples
    ]
    matrix, seconds = np.array(rows), np.array([value for _, value in samples])
    step_s, row_s, token_s = nnls(matrix / seconds[:, None], np.ones(len(samples)))[0].tolist()
    return HostTerms(step_s=step_s, row_s=row_s, token_s=token_s)


def fit_eager(points: Sequence[Measured]) -> tuple[LinearTerms, HostTerms]:
    """Device work of eager steps and the host's launches. Steps that the host holds up show only the latter."""
    launch = fit_host([(point.shape, point.submit_s) for point in points], with_tokens=True)
    shown = [point for point in points if point.run_s > _LAUNCH_MARGIN * point.submit_s]
    # What is hidden is at most what was seen: a few such points keep small steps from being guessed too long.
    if len(shown) < 16:
        shown = list(points)
    return fit_linear(shown), launch


def held_out(
    regime: str,
    points: Sequence[Measured],
    predict: Callable[[Sequence[Measured]], Callable[[Measured], float]],
    folds: int = 5,
) -> FitError:
    """Cross-validated relative errors: each point is predicted by a fit to the other folds."""
    errors = []
    for fold in range(folds):
        rest = [point for index, point in enumerate(points) if index % folds != fold]
        asked = [point for index, point in enumerate(points) if index % folds == fold]
        predicted = predict(rest)
        errors += [abs(predicted(point) / point.run_s - 1) for point in asked]
    return FitError(
        regime=regime,
        num_points=len(points),
        median=float(np.median(errors)),
        p95=float(np.percentile(errors, 95)),
    )


def _hats(knots: Sequence[int], tokens: int) -> list[float]:
    return [float(np.interp(tokens, knots, np.eye(len(knots))[index])) for index in range(len(knots))]


_WORK = ("row_s", "sampled_s", "decode_kv_s", "prefill_kv_s", "pair_s")


def _work(shape: StepShape) -> tuple[int, int, int, int, int]:
    return shape.num_rows, shape.num_sampled, shape.decode_kv_tokens, shape.prefill_kv_tokens, shape.prefill_pairs
