"""A calibration from start to end: build the engine, measure designed steps, fit, check the fit."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from framework.config.settings import Settings
from framework.execution.built import BuiltEngine
from framework.execution.graphs.choose_graph import strategy_of
from framework.interfaces.attention import GraphSupport
from framework.interfaces.graph import GraphLimits, GraphScope
from framework.models.shape import model_shape
from framework.registry import ATTENTIONS
from framework.simulation.calibration.design import Row, decode_points, eager_row_counts, mixed_points
from framework.simulation.calibration.fit import fit_decode, fit_eager, fit_host, fit_linear, held_out
from framework.simulation.calibration.host import accepted_params, measure_host
from framework.simulation.calibration.measure import Bench, Measured
from framework.simulation.hardware import HARDWARE
from framework.toolkit.step_profile import DecodeTable, HostTerms, StepProfile

_NO_TIME = HostTerms(step_s=0.0, row_s=0.0)


def calibrate(cfg: Settings, built: BuiltEngine, environment: dict[str, object]) -> tuple[StepProfile, list[Measured]]:
    """Measure the device that `built` runs on. This takes less than three minutes on a GPU.

    Args:
        environment: of the record: revision and versions, kept in the profile.

    Raises:
        ValueError: hardly any designed step fits the limits of the engine.
    """
    started = time.perf_counter()
    options, engine = cfg.calibrate, built.single_engine
    strategy = strategy_of(cfg, str(built.effective["graph"]))
    limits = engine.config
    capacity_tokens = (engine.executor.num_blocks - limits.max_num_seqs) * limits.block_size
    keys = strategy.keys(
        GraphLimits(
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            mixed_supported=ATTENTIONS.get(str(built.effective["attention"])).graph_support >= GraphSupport.MIXED,
        )
    )
    pieces = strategy.scope is GraphScope.PIECES
    chunks = mixed_points(
        options.num_points,
        sorted(key.num_tokens for key in keys if key.mixed or pieces),
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=built.max_model_len,
        capacity_tokens=capacity_tokens,
    )
    bench = Bench(
        engine.executor,
        strategy,
        block_size=limits.block_size,
        vocab_size=built.model_config.vocab_size,
        params=accepted_params(engine),
    )
    engine.executor.fill_cache()
    points: list[Measured] = []
    if row_counts := sorted(key.num_rows for key in keys if not pieces and not key.mixed):
        for point in decode_points(row_counts, built.max_model_len, capacity_tokens):
            points.append(bench.measure(point, options.repeats))
        for count in row_counts[:: max(1, len(row_counts) // 6)]:
            points.append(bench.measure([Row(64)] * count, options.repeats, new_rows=True))
    for rows in decode_points(eager_row_counts(limits.max_num_seqs), built.max_model_len, capacity_tokens):
        points.append(bench.measure(rows, options.repeats, eager=not pieces))
    for index, rows in enumerate(chunks):
        points.append(bench.measure(rows, options.repeats, skip=1))
        if points[-1].shape.scope is not None and index % 2:  # for simulations of strategies that do not capture it
            points.append(bench.measure(rows, options.repeats, skip=1, eager=True))
    host = fit_host(measure_host(engine, vocab_size=built.model_config.vocab_size))
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": f"{time.perf_counter() - started:.0f}",
        "revision": f"{environment.get('git_revision')}{' (dirty)' if environment.get('git_dirty') else ''}",
        "packages": str(environment.get("packages")),
        "attention": str(built.effective.get("attention")),
        "graph": str(built.effective["graph"]),
        "sampler": str(cfg.sampler.name),
        "block_size": str(limits.block_size),
        "max_num_seqs": str(limits.max_num_seqs),
        "max_num_batched_tokens": str(limits.max_num_batched_tokens),
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
    return fit_profile(points, host, measured, identity), points


def fit_profile(
    points: Sequence[Measured], host: HostTerms, measured: dict[str, str], identity: dict[str, object]
) -> StepProfile:
    """The profile of measured steps, with the errors of its fits."""
    eager_points = [point for point in points if point.shape.scope is None]
    graph_points = [point for point in points if point.shape.scope is not None]
    scope = graph_points[0].shape.scope if graph_points else None
    eager, eager_launch = fit_eager(eager_points)
    errors = []
    table = pieces = mixed = mixed_launch = None
    graph_launch = new_rows = _NO_TIME
    if scope is GraphScope.PIECES:
        pieces, graph_launch = fit_linear(graph_points, _sizes(graph_points)), _launch(graph_points)
        errors.append(held_out("pieces", graph_points, _graph_time(_sizes(graph_points), None)))
    else:
        if decode_rows := [p for p in graph_points if not p.shape.mixed_graph and not p.shape.new_rows]:
            table, graph_launch = fit_decode(decode_rows), _launch(decode_rows)
            errors.append(held_out("decode graphs", decode_rows, _decode_time))
        if changed := [p for p in graph_points if not p.shape.mixed_graph and p.shape.new_rows]:
            launch = graph_launch
            new_rows = fit_host([(p.shape, max(1e-6, p.submit_s - launch.seconds_of(p.shape))) for p in changed])
        if chunked := [p for p in graph_points if p.shape.mixed_graph]:
            mixed, mixed_launch = fit_linear(chunked, _sizes(chunked), table), _launch(chunked)
            errors.append(held_out("mixed graphs", chunked, _graph_time(_sizes(chunked), table)))
    errors.append(held_out("eager", eager_points, _eager_time))
    return StepProfile(
        graph_scope=scope.value if scope is not None else "",
        decode=table,
        mixed=mixed,
        mixed_launch=mixed_launch,
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
    """The preset of a device by the name that its driver gives; a name made from that if there is no preset."""
    for hardware in HARDWARE.values():
        if device_name.startswith(hardware.device_name):
            return hardware.name
    return re.sub(r"[^a-z0-9]+", "_", device_name.lower()).strip("_")


Predict = Callable[[Measured], float]


def _launch(points: Sequence[Measured]) -> HostTerms:
    return fit_host([(point.shape, point.submit_s) for point in points])


def _sizes(points: Sequence[Measured]) -> list[int]:
    return sorted({point.shape.padded_tokens for point in points})


def _graph_time(sizes: Sequence[int], table: DecodeTable | None) -> Callable[[Sequence[Measured]], Predict]:
    def predict(points: Sequence[Measured]) -> Predict:
        terms = fit_linear(points, sizes, table)
        return lambda point: terms.seconds_of(point.shape, table)

    return predict


def _decode_time(points: Sequence[Measured]) -> Predict:
    table = fit_decode(points)
    return lambda point: table.seconds_of(point.shape.padded_rows, point.shape.decode_kv_tokens)


def _eager_time(points: Sequence[Measured]) -> Predict:
    terms, launch = fit_eager(points)
    return lambda point: max(terms.seconds_of(point.shape), launch.seconds_of(point.shape))
