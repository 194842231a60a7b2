"""A calibration from start to end: build the engine, measure designed steps, fit, check the fit."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from omegaconf import DictConfig

from framework.built import BuiltEngine
from framework.calibration.design import Row, decode_points, eager_row_counts, mixed_points
from framework.calibration.fit import fit_decode, fit_eager, fit_host, fit_linear, held_out
from framework.calibration.host import accepted_params, measure_host
from framework.calibration.measure import Bench, Measured
from framework.execution.hardware import HARDWARE
from framework.interfaces.graph import GraphLimits, GraphScope, GraphStrategy
from framework.interfaces.step_profile import HostTerms, StepProfile
from framework.models.shape import model_shape
from framework.registry import GRAPHS

_NO_TIME = HostTerms(step_s=0.0, row_s=0.0)


def calibrate(
    cfg: DictConfig, built: BuiltEngine, environment: dict[str, object]
) -> tuple[StepProfile, list[Measured]]:
    """Measure the device that `built` runs on. Under three minutes on a GPU.

    Args:
        environment: of the record: revision and versions, kept in the profile.

    Raises:
        ValueError: hardly any designed step fits the limits of the engine.
    """
    started = time.perf_counter()
    options, engine = cfg.calibrate, built.single_engine
    strategy: GraphStrategy = GRAPHS.build(cfg.graph)
    capacity_tokens = (
        engine.executor.num_blocks * cfg.engine.block_size - cfg.engine.max_num_seqs * cfg.engine.block_size
    )
    chunks = mixed_points(
        options.num_points,
        max_num_seqs=cfg.engine.max_num_seqs,
        max_num_batched_tokens=cfg.engine.max_num_batched_tokens,
        max_model_len=built.max_model_len,
        capacity_tokens=capacity_tokens,
    )
    bench = Bench(
        engine.executor,
        block_size=cfg.engine.block_size,
        vocab_size=built.model_config.vocab_size,
        scope=strategy.scope,
        params=accepted_params(engine),
    )
    engine.executor.fill_cache()
    graph_points: list[Measured] = []
    changed_points: list[Measured] = []
    keys = strategy.keys(
        GraphLimits(
            max_num_seqs=cfg.engine.max_num_seqs,
            max_num_batched_tokens=cfg.engine.max_num_batched_tokens,
            mixed_supported=False,
        )
    )
    pieces = strategy.scope is GraphScope.PIECES and bool(keys)
    if keys and not pieces:
        sizes = sorted(key.num_rows for key in keys)
        for point in decode_points(sizes, built.max_model_len, capacity_tokens):
            graph_points.append(bench.measure(point, options.repeats))
        for size in sizes[:: max(1, len(sizes) // 6)]:
            changed_points.append(bench.measure([Row(64)] * size, options.repeats, new_rows=True))
    mixed = []
    for rows in decode_points(eager_row_counts(cfg.engine.max_num_seqs), built.max_model_len, capacity_tokens):
        rows[0] = Row(rows[0].start, samples=False)  # a row that samples nothing keeps the step out of graphs
        mixed.append(bench.measure(rows, options.repeats))
    for rows in chunks:
        mixed.append(bench.measure(rows, options.repeats, skip=1))
    eager_points = [point for point in mixed if point.shape.scope is None]
    if pieces:
        graph_points = [point for point in mixed if point.shape.scope is not None]
    host = fit_host(measure_host(engine, vocab_size=built.model_config.vocab_size))
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": f"{time.perf_counter() - started:.0f}",
        "revision": f"{environment.get('git_revision')}{' (dirty)' if environment.get('git_dirty') else ''}",
        "packages": str(environment.get("packages")),
        "attention": str(built.effective.get("attention")),
        "graph": str(cfg.graph.name),
        "sampler": str(cfg.sampler.name),
        "block_size": str(cfg.engine.block_size),
        "max_num_seqs": str(cfg.engine.max_num_seqs),
        "max_num_batched_tokens": str(cfg.engine.max_num_batched_tokens),
    }
    identity = {
        "hardware": hardware_name(str(environment.get("device_name") or "cpu")),
        "device_name": str(environment.get("device_name") or environment.get("cpu")),
        "model_name": str(cfg.model.name),
        "model": model_shape(built.model_config),
        "dtype": str(built.effective["dtype"]),
        "kv_dtype": str(built.effective["kv_dtype"]),
        "tp": int(cfg.executor.tp),
    }
    profile = fit_profile(
        graph_points, changed_points, eager_points, host, strategy.scope if keys else None, measured, identity
    )
    return profile, graph_points + changed_points + eager_points


def fit_profile(
    graph_points: list[Measured],
    changed_points: list[Measured],
    eager_points: list[Measured],
    host: HostTerms,
    scope: GraphScope | None,
    measured: dict[str, str],
    identity: dict[str, object],
) -> StepProfile:
    """The profile of measured steps, with the errors of its fits."""
    eager, eager_launch = fit_eager(eager_points)
    errors = []
    table = pieces = None
    graph_launch = new_rows = _NO_TIME
    if graph_points:
        graph_launch = fit_host([(point.shape, point.submit_s) for point in graph_points])
    if changed_points:
        launch = graph_launch
        extra = [(p.shape, max(1e-6, p.submit_s - launch.seconds_of(p.shape))) for p in changed_points]
        new_rows = fit_host(extra)
    if graph_points:
        if scope is GraphScope.PIECES:
            pieces = fit_linear(graph_points)
            errors.append(held_out("pieces", graph_points, _pieces_time))
        else:
            table = fit_decode(graph_points)
            errors.append(held_out("decode graphs", graph_points, _decode_time))
    errors.append(held_out("eager", eager_points, _eager_time))
    return StepProfile(
        graph_scope=scope.value if scope is not None and graph_points else "",
        decode=table,
        pieces=pieces,
        eager=eager,
        eager_launch=eager_launch,
        graph_launch=graph_launch,
        new_rows=new_rows,
        host=host,
        errors=errors,
        measured=measured,
        **identity,  # type: ignore[arg-type]
    )


def hardware_name(device_name: str) -> str:
    """The preset of a device as its driver calls it; a name made of that if there is none."""
    for hardware in HARDWARE.values():
        if device_name.startswith(hardware.device_name):
            return hardware.name
    return re.sub(r"[^a-z0-9]+", "_", device_name.lower()).strip("_")


Predict = Callable[[Measured], float]


def _pieces_time(points: Sequence[Measured]) -> Predict:
    terms = fit_linear(points)
    return lambda point: terms.seconds_of(point.shape)


def _decode_time(points: Sequence[Measured]) -> Predict:
    table = fit_decode(points)
    return lambda point: table.seconds_of(point.shape.padded_rows, point.shape.decode_kv_tokens)


def _eager_time(points: Sequence[Measured]) -> Predict:
    terms, launch = fit_eager(points)
    return lambda point: max(terms.seconds_of(point.shape), launch.seconds_of(point.shape))
