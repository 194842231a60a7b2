"""The fits find the coefficients that made the points, and are not led astray by a slow stretch."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from framework.interfaces.cost_model import StepShape
from framework.interfaces.graph import GraphScope
from framework.simulation.calibration.design import mixed_points
from framework.simulation.calibration.fit import fit_decode, fit_eager, fit_host, fit_linear, held_out, poor_fit
from framework.simulation.calibration.measure import Measured
from framework.toolkit.step_profile import DecodeTable, FitError
from tests.step_shapes import decode_shape

LIMITS = {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "max_model_len": 4096, "capacity_tokens": 100_000}


def shapes() -> list[StepShape]:
    found = []
    for rows in mixed_points(120, **LIMITS):
        decode = [row for row in rows if row.num == 1]
        chunks = [row for row in rows if row.num > 1]
        tokens = sum(row.num for row in rows)
        found.append(
            StepShape(
                num_tokens=tokens,
                num_rows=len(rows),
                num_decode_rows=len(decode),
                num_sampled=len(rows),
                decode_kv_tokens=sum(row.start + 1 for row in decode),
                prefill_kv_tokens=sum(row.start + row.num for row in chunks),
                prefill_pairs=sum(row.num * row.start + row.num * (row.num + 1) // 2 for row in chunks),
                scope=None,
                padded_tokens=tokens,
                padded_rows=len(rows),
            )
        )
    return found


def device_s(shape: StepShape) -> float:
    return (
        1e-3 + 1e-5 * shape.num_tokens + 2e-8 * shape.decode_kv_tokens + 5e-9 * shape.prefill_pairs
        + 1e-6 * shape.num_rows
    )  # fmt: skip


def launch_s(shape: StepShape) -> float:
    mixed = 0 < shape.num_decode_rows < shape.num_rows
    return 8e-3 + 2e-6 * shape.num_rows + (1e-3 if mixed else 0.0)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("changed", [{"max_model_len": 40}, {"max_num_batched_tokens": 1}, {"capacity_tokens": 60}])
def test_limits_that_no_step_fits_are_refused(changed: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"only 0 of calibrate\.num_points=6 steps fit engine\.max_model_len=.* raise"):
        mixed_points(6, **LIMITS | changed)


def test_designed_steps_fit_the_engine() -> None:
    for rows in mixed_points(60, **LIMITS):
        assert len(rows) <= 64
        assert sum(row.num for row in rows) <= 2048
        assert [row.num > 1 for row in rows] == sorted(row.num > 1 for row in rows)
        assert any(row.num > 1 for row in rows)
        assert all(row.start + row.num < 4096 for row in rows)


def test_linear_terms_are_found() -> None:
    points = [Measured(shape=shape, run_s=device_s(shape), submit_s=1e-6) for shape in shapes()]
    terms = fit_linear(points)
    assert all(terms.seconds_of(p.shape) == pytest.approx(p.run_s, rel=0.02) for p in points)
    assert terms.pair_s == pytest.approx(5e-9, rel=0.05)


def test_captured_sizes_and_what_chunks_wait_for_are_found() -> None:
    """A larger graph may be faster, the decode rows' share comes from their table, a chunk walks over its context."""
    table = DecodeTable(rows=[1, 64], kv_tokens=[[0, 100_000], [0, 100_000]], seconds=[[1e-3, 3e-3], [1e-3, 3e-3]])
    own_s = {64: 3e-3, 256: 2e-3, 2048: 6e-3}
    points = []
    for shape in shapes():
        size = next(size for size in own_s if size >= shape.num_tokens)
        longest = shape.prefill_kv_tokens // max(1, shape.num_rows - shape.num_decode_rows)
        step = shape._replace(scope=GraphScope.STEP, padded_tokens=size, padded_rows=64, longest_chunk_kv=longest)
        seconds = own_s[size] + 2e-8 * shape.decode_kv_tokens + 7e-7 * longest
        seconds += 2e-4 if 0 < shape.num_decode_rows < shape.num_rows else 0
        points.append(Measured(shape=step, run_s=seconds, submit_s=1e-6))
    terms = fit_linear(points, list(own_s), table)
    assert all(terms.seconds_of(p.shape, table) == pytest.approx(p.run_s, rel=0.02) for p in points)
    assert (terms.decode_share, terms.longest_kv_s) == (pytest.approx(1, rel=0.05), pytest.approx(7e-7, rel=0.05))


def test_designed_steps_go_to_every_captured_size() -> None:
    sizes = [16, 64, 256]
    totals = [sum(row.num for row in rows) for rows in mixed_points(40, sizes, **LIMITS)]
    for low, high in pairwise([0, *sizes, LIMITS["max_num_batched_tokens"]]):
        assert sum(low < total <= high for total in totals) == 10


def test_a_slow_stretch_does_not_shape_the_fit() -> None:
    samples = [(shape, launch_s(shape)) for shape in shapes()]
    slowed = [(shape, 2 * seconds if 20 <= i < 50 else seconds) for i, (shape, seconds) in enumerate(samples)]
    terms = fit_host(slowed)
    assert all(terms.seconds_of(shape) == pytest.approx(seconds, rel=0.05) for shape, seconds in samples)


def test_launches_hide_the_devices_own_work() -> None:
    points = [
        Measured(shape=shape, run_s=max(device_s(shape), launch_s(shape)), submit_s=launch_s(shape))
        for shape in shapes()
    ]
    device, launch = fit_eager(points)
    for point in points:
        predicted = max(device.seconds_of(point.shape), launch.seconds_of(point.shape))
        assert predicted == pytest.approx(point.run_s, rel=0.08)


def test_tables_hold_their_points_and_errors_come_from_points_left_out() -> None:
    rng = random.Random(0)
    points = []
    for rows in (1, 8, 64):
        for context in (64, 512, 2048):
            kv = rows * context
            shape = decode_shape(rows, kv, rows)
            points.append(Measured(shape=shape, run_s=1e-3 + 1e-6 * rows + 1e-8 * kv, submit_s=1e-5))
    table = fit_decode(points)
    assert all(table.seconds_of(p.shape.padded_rows, p.shape.decode_kv_tokens) == p.run_s for p in points)
    noisy = [Measured(shape=p.shape, run_s=p.run_s * rng.uniform(0.8, 1.2), submit_s=p.submit_s) for p in points]
    perfect = held_out("x", noisy, lambda rest: lambda p: p.run_s)
    half = held_out("x", noisy, lambda rest: lambda p: p.run_s / 2)
    assert (perfect.median, half.median, half.num_points) == (0.0, 0.5, 9)


def test_a_poor_fit_is_named_with_its_error_the_limit_and_a_remedy() -> None:
    good, poor = (
        FitError(regime=name, num_points=9, median=m, p95=0.5) for name, m in (("graph", 0.1), ("eager", 0.123))
    )
    assert poor_fit([good]) == ""
    said = poor_fit([good, poor])
    assert "more than 10% in the median (eager by 12.3%)" in said
    assert "calibrate.repeats" in said
