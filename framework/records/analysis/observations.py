"""How many observations cells are. Repeats under other seeds count only if the seed changed anything."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from framework.records.analysis.cells import Cell, Value
from framework.records.analysis.grouping import Group, by_seed, seed_of

REQUESTS_HASH = "effective.workload.requests_sha256"
_MEASURED_ON_HOST = ("plan_s", "startup_s", "peak_memory_gib")
"""Metrics that vary from run to run even where everything else is computed, as it is in a simulation."""

T = TypeVar("T")
Result = Hashable


def observed(cells: Sequence[Cell], metric: str, seeds: Sequence[str]) -> list[float]:
    """The values of `metric`, one per seed; seeds that gave the same result are one observation."""
    values = by_seed(cells, metric, seeds)
    results = results_by_seed(cells, seeds)
    kept = _distinct(values, lambda seed: results[seed], metric)
    return list(_unless_constant([values[seed] for seed in kept], _requests(cells)))


def observed_pairs(
    pairs: Mapping[tuple[Value, ...], tuple[float, float]],
    cells: tuple[Sequence[Cell], Sequence[Cell]],
    metric: str,
    seeds: Sequence[str],
) -> list[tuple[float, float]]:
    """`pairs` of values by seed, less those whose two cells both repeat the results of another pair."""
    own, theirs = (results_by_seed(side, seeds) for side in cells)
    kept = _distinct(pairs, lambda seed: (own[seed], theirs[seed]), metric)
    return list(_unless_constant([pairs[seed] for seed in kept], _requests([*cells[0], *cells[1]])))


def unmoved(groups: Iterable[Group], metrics: Sequence[str], seeds: Sequence[str]) -> list[Group]:
    """The groups in which several seeds gave one result in all of the computed `metrics`."""
    computed = [metric for metric in metrics if not metric.startswith(_MEASURED_ON_HOST)]
    return [
        group
        for group in groups
        if len({seed_of(cell, seeds) for cell in group.cells}) > 1
        and all(len(observed(group.cells, metric, seeds)) < 2 for metric in computed)
    ]


def results_by_seed(cells: Sequence[Cell], seeds: Sequence[str]) -> dict[tuple[Value, ...], Result]:
    """The result under each seed: every metric except those that the host's clock moves."""
    found: dict[tuple[Value, ...], list[Result]] = {}
    for cell in cells:
        result = frozenset(item for item in cell.metrics.items() if not item[0].startswith(_MEASURED_ON_HOST))
        found.setdefault(seed_of(cell, seeds), []).append(result)
    return {seed: frozenset(results) for seed, results in found.items()}


def _distinct(
    seeds: Iterable[tuple[Value, ...]], result: Callable[[tuple[Value, ...]], Result], metric: str
) -> list[tuple[Value, ...]]:
    """The first seed of each result."""
    if metric.startswith(_MEASURED_ON_HOST):
        return list(seeds)
    first: dict[Result, tuple[Value, ...]] = {}
    for seed in seeds:
        first.setdefault(result(seed), seed)
    return list(first.values())


def _requests(cells: Sequence[Cell]) -> set[Value]:
    return {cell.keys.get(REQUESTS_HASH) for cell in cells}


def _unless_constant(values: Sequence[T], requests: set[Value]) -> Sequence[T]:
    """One of `values` if they are all equal and come from one and the same list of requests.

    A machine's noise makes repeats of such a list differ in their times; what it leaves equal, a hit rate say, follows
    from the list alone.
    """
    same_requests = len(requests) == 1 and None not in requests
    return values[:1] if same_requests and len(set(values)) == 1 else values
