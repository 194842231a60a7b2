"""How the numbers of a comparison were made, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.conditions import code_and_versions
from framework.records.analysis.grouping import Group, seed_of
from framework.records.analysis.observations import unmoved
from framework.records.analysis.statistics import CONFIDENCE, MIN_SEEDS
from framework.records.metrics.percentiles import needed_count, percent_of


def explain(result: Comparison, seeds: Sequence[str], rest: Sequence[str]) -> None:
    """Fill `notes`, and add to `warnings` what the records' origin asks for.

    Args:
        result: with its rows.
        seeds: keys that tell repeats apart.
        rest: keys that differ and are not compared.
    """
    result.notes += [*_repeats(result, seeds, rest), *_tests(result, rest), *_too_few(result), *_undefined(result)]
    rejecting = sum(cell.metrics.get("requests_rejected", 0) > 0 for cell in result.cells)
    if rejecting:
        result.warnings.append(
            f"{rejecting} of {len(result.cells)} cells rejected requests; their metrics are those of the requests that"
            " ran: compare requests_rejected too"
        )
    result.warnings += code_and_versions(result.cells)
    result.warnings += _odd(result)


def _odd(result: Comparison) -> list[str]:
    """A sentence for each metric that a record holds as something else than a number."""
    found: dict[str, list[str]] = {}
    for cell in result.cells:
        for metric in [name for name in result.metrics if name in cell.odd]:
            found.setdefault(metric, []).append(f"{cell.odd[metric]} in {cell.folder}")
    return [
        f"{metric} is not a finite number in {len(where)} of {len(result.cells)} cells, which do not count: "
        + "; ".join([*where[:3], *(["..."] if len(where) > 3 else [])])
        for metric, where in found.items()
    ]


def _repeats(result: Comparison, seeds: Sequence[str], rest: Sequence[str]) -> list[str]:
    notes = []
    numbers = {row.n for row in result.rows}
    still = unmoved(result.groups, result.metrics, seeds)
    if still:
        notes.append(_seed_changes_nothing(still, result.groups))
    if max(numbers) < MIN_SEEDS and still:
        notes.append(f"Reported without intervals, which need {MIN_SEEDS} different observations.")
    elif max(numbers) < MIN_SEEDS:
        most = max(numbers)
        notes.append(
            f"Reported without intervals: {most} seed{'s' * (most > 1)} a group, and intervals need {MIN_SEEDS}; "
            f"add seed=range({MIN_SEEDS}) to the sweep."
        )
    else:
        notes.append("Intervals are 95 % intervals of the mean over seeds (Student's t).")
        if min(numbers) < MIN_SEEDS:
            notes.append(f"Rows of fewer than {MIN_SEEDS} seeds have no interval.")
    distinct = {(*seed_of(cell, seeds), *(cell.keys.get(key) for key in result.by)) for cell in result.cells}
    repeats = len(result.cells) - len(distinct)
    if repeats and rest:
        notes.append(f"Cells of one seed that differ in {', '.join(rest)} count as one value, their mean.")
    elif repeats:
        notes.append(
            f"{repeats} cells repeat the configuration and seed of another: they count as one value, their mean."
        )
    return notes


def _seed_changes_nothing(still: Sequence[Group], groups: Sequence[Group]) -> str:
    where = "here" if len(still) == len(groups) else f"in {'; '.join(group.name for group in still)}"
    keys = still[0].cells[0].keys
    if keys.get("workload.seed") is not None:
        remedy = "set workload.seed=null, so that the workload follows it"
    elif keys.get("workload.arrival") == "trace":
        remedy = "set workload.arrival=poisson, or compare other parts of the trace"
    else:
        remedy = "draw arrivals or lengths at random (workload.arrival=poisson)"
    return (
        f"The seed changes nothing {where}: cells that differ in it alone have equal results and count as one "
        f"observation. To get more, {remedy}."
    )


def _tests(result: Comparison, rest: Sequence[str]) -> list[str]:
    notes = []
    tests = {row.test for row in result.rows}
    if "paired" in tests:
        notes.append(f"Differences are paired by {' and '.join(['seed', *rest])}.")
    if "welch" in tests:
        notes.append(f"Rows marked (unpaired) share fewer than {MIN_SEEDS} seeds of equal cells: Welch's t test.")
    cut = {row.group.name for row in result.rows if row.test == "paired" and row.num_compared < row.n}
    if cut:
        notes.append(f"Seeds without a partner in the baseline are not in the difference of {'; '.join(sorted(cut))}.")
    tested = sum(row.p is not None for row in result.rows)
    if tested and result.correction == "holm":
        notes.append(f"Marks are corrected for {tested} comparisons (Holm); intervals are not.")
    elif tested > 1:
        expected = tested * (1 - CONFIDENCE)
        notes.append(
            f"{tested} comparisons, not corrected: chance alone marks about {expected:.2g} (see --correction holm)."
        )
    return notes


def _too_few(result: Comparison) -> list[str]:
    fewest: dict[str, int] = {}
    for row in result.rows:
        if row.few is not None:
            fewest[row.metric] = min(row.few, fewest.get(row.metric, row.few))
    return [
        f"† {metric} is that of only {count} values in some cell, hardly more than the largest one: it needs "
        f"{needed_count(percent_of(metric.rpartition('/')[2]) or 0)} or more."
        for metric, count in fewest.items()
    ]


def _undefined(result: Comparison) -> list[str]:
    total = len(result.cells)
    counts = {metric: sum(metric not in cell.metrics for cell in result.cells) for metric in result.metrics}
    return [f"{metric} is undefined in {n} of {total} cells, which do not count." for metric, n in counts.items() if n]
