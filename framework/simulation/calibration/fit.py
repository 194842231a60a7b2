"""Fits a profile to measured steps: a table for graphs of decode rows, non-negative least squares for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls

from framework.interfaces.cost_model import StepShape
from framework.simulation.calibration.measure import Measured
from framework.toolkit.step_profile import DecodeTable, FitError, HostTerms, LinearTerms

_KNOTS = (1, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_HUBER, _REWEIGHTINGS = 0.05, 20
_LEAST_POINTS = 16
LARGEST_ERROR = 0.1
"""The largest median error of a fit that passes without a warning."""
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


def fit_linear(points: Sequence[Measured], sizes: Sequence[int] = (), table: DecodeTable | None = None) -> LinearTerms:
    """Relative errors are what is made small, so that short steps count as much as long ones. Robust as `fit_host`.

    Args:
        sizes: ascending, all that `padded_tokens` can be, for graphs; () for any number.
        table: what the context of decode rows costs, where it is known better than as so much a position.
    """
    largest = max(point.shape.padded_tokens for point in points)
    knots = list(sizes) or [knot for knot in _KNOTS if knot < largest] + [largest]
    matrix = np.array([[*_hats(knots, point.shape.padded_tokens), *_work(point.shape, table)] for point in points])
    solution = _robust(matrix, np.array([point.run_s for point in points]))
    knot_s = solution[: len(knots)]
    if not sizes:  # a knot without points near it takes the one's before; among sizes, larger ones may be faster
        knot_s = np.maximum.accumulate(knot_s)
    return LinearTerms(
        knots=knots,
        knot_s=knot_s.tolist(),
        **dict(zip(_WORK, solution[len(knots) :].tolist(), strict=True)),
    )


def fit_host(samples: Sequence[tuple[StepShape, float]]) -> HostTerms:
    """`samples` are shapes with host seconds. Robust, since other processes and a CPU that changes its clock slow down
    whole stretches of a measurement."""
    names = ("step_s", "row_s", "chunk_s", "token_s", "mixed_s")
    matrix = np.array([_host_work(shape) for shape, _ in samples], dtype=float)
    solution = _robust(matrix, np.array([value for _, value in samples]))
    return HostTerms(**dict(zip(names, solution.tolist(), strict=True)))


def _robust(matrix: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Non-negative least squares on relative errors, reweighted so that one above `_HUBER` counts linearly (Huber)."""
    scale = np.maximum(matrix.max(axis=0), 1e-30)
    relative = matrix / scale / seconds[:, None]
    weights = np.minimum(1.0, np.median(seconds) / seconds)  # what is slowed down must not shape the first fit
    solution = np.zeros(matrix.shape[1])
    for _ in range(_REWEIGHTINGS):
        solution = nnls(relative * weights[:, None], weights, maxiter=100 * matrix.shape[1])[0]
        errors = np.abs(relative @ solution - 1)
        weights = np.sqrt(np.minimum(1.0, _HUBER / np.maximum(errors, 1e-9)))
    return solution / scale


def _host_work(shape: StepShape) -> tuple[int, ...]:
    num_decode = shape.num_decode_rows
    num_chunks = shape.num_rows - num_decode
    return 1, shape.num_rows, num_chunks, shape.num_tokens - num_decode, int(0 < num_decode < shape.num_rows)


def fit_eager(points: Sequence[Measured]) -> tuple[LinearTerms, HostTerms]:
    """Device work of eager steps and the host's launches. Steps that the host holds up show only the latter."""
    launch = fit_host([(point.shape, point.submit_s) for point in points])
    shown = [point for point in points if point.run_s > _LAUNCH_MARGIN * point.submit_s]
    return fit_linear(shown if len(shown) >= _LEAST_POINTS else points), launch


def held_out(
    regime: str,
    points: Sequence[Measured],
    predict: Callable[[Sequence[Measured]], Callable[[Measured], float]],
    folds: int = 5,
) -> FitError:
    """Cross-validated relative errors: each point is predicted by a fit to the other folds."""
    errors: list[float] = []
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


def poor_fit(errors: Sequence[FitError]) -> str:
    """What is wrong with a profile that misses held-out points by more than 10 % in the median; "" if nothing is."""
    poor = [error for error in errors if error.median > LARGEST_ERROR]
    if not poor:
        return ""
    regimes = ", ".join(f"{error.regime} by {error.median:.1%}" for error in poor)
    return (
        f"the profile misses held-out steps by more than {LARGEST_ERROR:.0%} in the median ({regimes}), "
        "so that simulations with it may be as far off; free the device of other work, or raise calibrate.repeats or "
        "calibrate.num_points, and calibrate again"
    )


def _hats(knots: Sequence[int], tokens: int) -> list[float]:
    return [float(np.interp(tokens, knots, np.eye(len(knots))[index])) for index in range(len(knots))]


_WORK = (
    "row_s", "sampled_s", "decode_kv_s", "decode_share", "prefill_kv_s", "pair_s", "mixed_s", "longest_kv_s"
)  # fmt: skip


def _work(shape: StepShape, table: DecodeTable | None) -> tuple[float, ...]:
    num_decode = shape.num_decode_rows
    decode = (shape.decode_kv_tokens, 0) if table is None else (0, table.context_s(num_decode, shape.decode_kv_tokens))
    prefill = shape.prefill_kv_tokens, shape.prefill_pairs
    mixed = int(0 < num_decode < shape.num_rows)
    return shape.num_rows, shape.num_sampled, *decode, *prefill, mixed, shape.longest_chunk_kv
