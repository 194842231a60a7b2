"""Compares groups of cells with a baseline, paired by seed where that is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from framework.records.analysis.cells import Cell, Value, find
from framework.records.analysis.comparison import Comparison, Correction, Mark, Row
from framework.records.analysis.grouping import (
    ARM,
    Group,
    by_seed,
    context,
    context_differences,
    counterpart,
    differing_keys,
    is_context,
    is_seed,
    known_key,
    make_groups,
    parse_baseline,
    seed_of,
    show,
    some,
)
from framework.records.analysis.metric_names import check_metrics, default_metrics, direction
from framework.records.analysis.notes import explain
from framework.records.analysis.statistics import CONFIDENCE, MIN_SEEDS, holm, mean, paired_difference, welch_difference


def compare_cells(
    folders: Sequence[str | Path],
    *,
    baseline: Sequence[str] = (),
    metrics: Sequence[str] = (),
    by: Sequence[str] = (),
    correction: Correction = "none",
) -> Comparison:
    """Compare the completed cells below `folders`.

    Args:
        folders: of runs and sweeps.
        baseline: `key=value` of the compared keys; each group is compared with the one that has these values and is
            otherwise its equal. Empty: the first value of every key that does not belong to workload, model or device.
        metrics: names; empty for the ones that tell most.
        by: keys whose values make a group; empty for those that differ, seeds aside.
        correction: of the p values behind the marks, for the number of comparisons.

    Raises:
        ValueError: nothing to compare, or an unknown key, value or metric.
    """
    everything, damaged = find(folders)
    cells = [cell for cell in everything if cell.status == "completed"]
    if not cells:
        reasons = [f"{cell.folder}: {cell.status}: {cell.reason}" for cell in everything[:10]]
        reasons += [f"{one.folder}: damaged: {one.why}" for one in damaged[:10]]
        found = f"{len(everything)} records" + (f" ({len(damaged)} more are damaged)" if damaged else "")
        raise ValueError(f"none of the {found} is completed:" + "".join(f"\n  {line}" for line in reasons))
    differing = differing_keys(cells)
    keys = list(dict.fromkeys(known_key(k, cells) for k in by)) or [k for k in differing if not is_seed(k)]
    groups = make_groups(cells, keys)
    if not any(cell.metrics for cell in cells):
        raise ValueError(f"none of the {len(cells)} completed records defines a metric: did a request run?")
    result = Comparison(
        by=keys,
        baseline=parse_baseline(baseline, keys, cells) or _first(groups),
        seeds=[key for key in differing if is_seed(key)],
        metrics=check_metrics(metrics, cells) or default_metrics(cells),
        correction=correction,
        cells=cells,
        groups=groups,
        not_completed=[cell for cell in everything if cell.status != "completed"],
        damaged=damaged,
    )
    seeds = result.seeds
    others = [key for key in differing if key not in keys and key not in seeds]
    rest = [key for key in others if any(len({cell.keys.get(key) for cell in group.cells}) > 1 for group in groups)]
    confounded = [key for key in others if key not in rest and not is_context(key) and key != ARM]
    if confounded and by:
        result.warnings.append(
            f"what is compared differs in {', '.join(confounded)} too: the effects are of all of them"
        )
    _fill(result, seeds, rest)
    explain(result, seeds, rest)
    return result


def _first(groups: Sequence[Group]) -> dict[str, str]:
    values = {key: show(value) for key, value in groups[0].values.items()}
    return {key: value for key, value in values.items() if not is_context(key)} or values


def _fill(result: Comparison, seeds: Sequence[str], rest: Sequence[str]) -> None:
    unlike: dict[str, None] = {}
    varying = {key: values for key, values in context(result.cells).items() if len(values) > 1}
    for group in result.groups:
        base = counterpart(group, result.baseline, result.groups)
        if base is None:
            result.warnings.append(f"{group.name} has no counterpart in the baseline, so it is not compared")
        differences = [] if base is None or base is group else context_differences(group.cells, base.cells)
        mixed = {key: values for key, values in context(group.cells).items() if len(values) > 1}
        inside = [f"{key} ({some(values)} within {group.name})" for key, values in mixed.items()]
        unlike |= dict.fromkeys([*differences, *inside])
        for metric in result.metrics:
            values = by_seed(group.cells, metric, seeds)
            if not values:
                continue
            row = Row(group=group, metric=metric, n=len(values), mean=mean(list(values.values())))
            if base is group:
                row.baseline, row.mark = group, "baseline"
            elif base is not None:
                row.baseline = base
                _compare(row, base, seeds, rest, may_pair=not (differences or mixed))
            result.rows.append(row)
    if unlike:
        result.warnings.append(
            "different workloads, models or devices are compared, so no test between them is paired: "
            + "; ".join(unlike)
        )
    elif varying:
        differing = "; ".join(f"{key} ({some(values)})" for key, values in varying.items())
        result.warnings.append(f"workload, model or device differ, and only equal ones are compared: {differing}")
    compared = [row for row in result.rows if row.difference is not None]
    p_values = [row.difference.p if row.difference else None for row in compared]
    for row, p in zip(compared, holm(p_values) if result.correction == "holm" else p_values, strict=True):
        row.p = p
        row.mark = _mark(row)


def _compare(row: Row, base: Group, seeds: Sequence[str], rest: Sequence[str], *, may_pair: bool) -> None:
    own, theirs = by_seed(row.group.cells, row.metric, seeds), by_seed(base.cells, row.metric, seeds)
    if not theirs:
        return
    pairs = _pairs(row.group, base, row.metric, seeds, rest) if may_pair else []
    if pairs and (len(pairs) >= MIN_SEEDS or min(len(own), len(theirs)) < MIN_SEEDS):
        reference = [pair[1] for pair in pairs]
        row.test, row.difference = "paired", paired_difference([pair[0] for pair in pairs], reference)
        row.num_compared = len(pairs)
    else:
        reference = list(theirs.values())
        row.test, row.difference = "welch", welch_difference(list(own.values()), reference)
        row.num_compared = min(len(own), len(theirs))
    reference_mean = sum(reference) / len(reference)
    row.effect = row.difference.value / reference_mean if reference_mean else None


def _mark(row: Row) -> Mark:
    difference = row.difference
    assert difference is not None
    if row.p is None:
        return "few seeds"
    if difference.value == 0.0 and difference.low == difference.high:
        return "same"
    if row.p >= 1 - CONFIDENCE:
        return "noise"
    way = direction(row.metric)
    return "differs" if way == 0 else "better" if difference.value * way > 0 else "worse"


def _pairs(
    group: Group, base: Group, metric: str, seeds: Sequence[str], rest: Sequence[str]
) -> list[tuple[float, float]]:
    """A pair of values for each seed that both have, over those cells alone that agree in every other key as well."""

    def kind(cell: Cell) -> tuple[Value, ...]:
        return (*seed_of(cell, seeds), *(cell.keys.get(key) for key in rest))

    sides = [[cell for cell in one.cells if metric in cell.metrics] for one in (group, base)]
    common = set(map(kind, sides[0])) & set(map(kind, sides[1]))
    own, theirs = (by_seed([cell for cell in side if kind(cell) in common], metric, seeds) for side in sides)
    return [(own[seed], theirs[seed]) for seed in own]
