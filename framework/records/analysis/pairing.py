"""Compares groups of cells with a baseline, paired by seed where that is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from framework.records.analysis.cells import Cell, Value, find
from framework.records.analysis.columns import columns
from framework.records.analysis.comparison import Comparison, Correction, Mark, Row
from framework.records.analysis.conditions import unlike as unlike_conditions
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
from framework.records.analysis.metric_names import (
    check_metrics,
    default_metrics,
    direction,
    is_approximate,
    too_few,
    with_quality,
)
from framework.records.analysis.notes import explain
from framework.records.analysis.observations import REQUESTS_HASH, observed, observed_pairs
from framework.records.analysis.statistics import CONFIDENCE, MIN_SEEDS, holm, mean, paired_difference, welch_difference
from framework.records.metrics.quality import ATTENTION

_SERVED = "effective.workload."
"""The recorded result of the workload that was asked for."""


def compare_cells(
    folders: Sequence[str | Path],
    *,
    baseline: Sequence[str] = (),
    metrics: Sequence[str] = (),
    by: Sequence[str] = (),
    correction: Correction = "none",
    all_columns: bool = False,
) -> Comparison:
    """Compare the completed cells below `folders`.

    Args:
        folders: of runs and sweeps.
        baseline: `key=value` of the compared keys; each group is compared with the one that has these values and is
            otherwise its equal. Empty: the first value of every key that does not belong to workload, model or device.
        metrics: names; empty for the ones that tell most.
        by: keys whose values make a group; empty for those that differ, seeds aside.
        correction: of the p values behind the marks, for the number of comparisons.
        all_columns: show every key that differs, however many there are, and not only those that tell most.

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
    cells, unmeasured = _without_unmeasured(cells)
    differing = differing_keys(cells)
    keys = list(dict.fromkeys(known_key(k, cells) for k in by)) or [k for k in differing if not is_seed(k)]
    groups = make_groups(cells, keys)
    shown = keys if by or all_columns else columns(groups, keys)
    groups = [dataclasses.replace(group, shown=shown) for group in groups]
    if not any(cell.metrics for cell in cells):
        raise ValueError(f"none of the {len(cells)} completed records defines a metric: did a request run?")
    result = Comparison(
        by=keys,
        shown=shown,
        baseline=parse_baseline(baseline, keys, cells) or _first(groups),
        seeds=[key for key in differing if is_seed(key)],
        metrics=with_quality(check_metrics(metrics, cells) or default_metrics(cells), cells),
        correction=correction,
        cells=cells,
        groups=groups,
        not_completed=[cell for cell in everything if cell.status != "completed"],
        damaged=damaged,
        warnings=unmeasured,
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
    if hidden := [key for key in keys if key not in shown]:
        names = ", ".join(hidden[:6]) + (", ..." if len(hidden) > 6 else "")
        result.notes.append(
            f"{len(hidden)} more keys differ and have no column: {names}. To see them: --all-columns; to choose: --by."
        )
    return result


def _without_unmeasured(cells: list[Cell]) -> tuple[list[Cell], list[str]]:
    """The cells to compare, and a sentence for each that ran approximate attention of unknown quality.

    Raises:
        ValueError: no cell is left.
    """
    unmeasured = [cell for cell in cells if is_approximate(cell) and ATTENTION[-1] not in cell.metrics]
    told = [
        f"{cell.folder} is left out: attention={cell.keys.get('attention')} is not exact and its quality is not known"
        + (f" ({cell.keys['effective.quality_error']})" if "effective.quality_error" in cell.keys else "")
        for cell in unmeasured
    ]
    kept = [cell for cell in cells if cell not in unmeasured]
    if not kept:
        raise ValueError("\n  ".join(["nothing is left to compare:", *told[:10]]))
    return kept, told


def _first(groups: Sequence[Group]) -> dict[str, str]:
    values = {key: show(value) for key, value in groups[0].values.items()}
    return {key: value for key, value in values.items() if not is_context(key)} or values


def _fill(result: Comparison, seeds: Sequence[str], rest: Sequence[str]) -> None:
    unlike: dict[str, None] = {}
    bases = [(group, counterpart(group, result.baseline, result.groups)) for group in result.groups]
    varying = {key: values for key, values in context(result.cells).items() if len(values) > 1}
    for group, base in bases:
        if base is None:
            result.warnings.append(f"{group.name} has no counterpart in the baseline, so it is not compared")
        differences = [] if base is None or base is group else context_differences(group.cells, base.cells)
        mixed = {key: values for key, values in context(group.cells).items() if len(values) > 1}
        inside = [f"{key} ({some(values)} within {group.name})" for key, values in mixed.items()]
        unlike |= dict.fromkeys([*differences, *inside])
        asked = mixed or [one for one in differences if not one.startswith(_SERVED)]  # for another workload, openly
        alike = bool(asked) or base in (None, group) or (_same_requests(result, group, base, rest) and not differences)
        for metric in result.metrics:
            values = observed(group.cells, metric, seeds)
            if not values:
                continue
            few = too_few(metric, group.cells)
            row = Row(group=group, metric=metric, n=len(values), mean=mean(values), few=few)
            if base is group:
                row.baseline, row.mark = group, "baseline"
            elif base is not None and not alike:
                row.baseline, row.mark = base, "unlike"
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
    if conditions := unlike_conditions(bases, result.by):
        result.warnings.append(
            f"what ran differs in more than {', '.join(result.shown) or 'the seed'}, and the effects are of all of it: "
            + "; ".join(conditions)
        )
    compared = [row for row in result.rows if row.difference is not None]
    p_values = [row.difference.p if row.difference else None for row in compared]
    for row, p in zip(compared, holm(p_values) if result.correction == "holm" else p_values, strict=True):
        row.p = p
        row.mark = _mark(row)


def _compare(row: Row, base: Group, seeds: Sequence[str], rest: Sequence[str], *, may_pair: bool) -> None:
    own, theirs = observed(row.group.cells, row.metric, seeds), observed(base.cells, row.metric, seeds)
    if not theirs:
        return
    pairs = _pairs(row.group, base, row.metric, seeds, rest) if may_pair else []
    if pairs and (len(pairs) >= MIN_SEEDS or min(len(own), len(theirs)) < MIN_SEEDS):
        reference = [pair[1] for pair in pairs]
        row.test, row.difference = "paired", paired_difference([pair[0] for pair in pairs], reference)
        row.num_compared = len(pairs)
    else:
        reference = theirs
        row.test, row.difference = "welch", welch_difference(own, reference)
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


def _kind(cell: Cell, seeds: Sequence[str], rest: Sequence[str]) -> tuple[Value, ...]:
    return (*seed_of(cell, seeds), *(cell.keys.get(key) for key in rest))


def _same_requests(result: Comparison, group: Group, base: Group | None, rest: Sequence[str]) -> bool:
    """Whether cells of one seed served the same requests in both groups, as far as the records tell; else a warning.

    Where they did not, although the same workload was asked for, a difference says nothing about what is compared.
    """
    assert base is not None
    served: list[dict[tuple[Value, ...], set[Value]]] = [{}, {}]
    for side, one in zip(served, (group, base), strict=True):
        for cell in one.cells:
            if (digest := cell.keys.get(REQUESTS_HASH)) is not None:
                side.setdefault(_kind(cell, result.seeds, rest), set()).add(digest)
    common = set(served[0]) & set(served[1])
    other = [kind for kind in common if served[0][kind] != served[1][kind]]
    if not other:
        return True
    counts = " against ".join(some({_num_requests(cell) for cell in one.cells}) for one in (group, base))
    result.warnings.append(
        f"{group.name} and {base.name} did not serve the same requests ({len(other)} of {len(common)} seeds; {counts} "
        "requests per cell), so they are not compared"
    )
    return False


def _num_requests(cell: Cell) -> int:
    return int(sum(cell.metrics.get(f"requests_{name}", 0) for name in ("completed", "rejected", "aborted")))


def _pairs(
    group: Group, base: Group, metric: str, seeds: Sequence[str], rest: Sequence[str]
) -> list[tuple[float, float]]:
    """A pair of values for each seed that both have, over those cells alone that agree in every other key as well.

    Seeds that gave the same two results as another one add no pair.
    """
    sides = [[cell for cell in one.cells if metric in cell.metrics] for one in (group, base)]
    kinds = [{_kind(cell, seeds, rest) for cell in side} for side in sides]
    own, theirs = ([cell for cell in side if _kind(cell, seeds, rest) in kinds[0] & kinds[1]] for side in sides)
    values = by_seed(own, metric, seeds), by_seed(theirs, metric, seeds)
    pairs = {seed: (value, values[1][seed]) for seed, value in values[0].items()}
    return observed_pairs(pairs, (own, theirs), metric, seeds)
