"""How the numbers of a comparison were made, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from framework.records.analysis.comparison import Comparison
from framework.records.analysis.grouping import seed_of, some
from framework.records.analysis.statistics import CONFIDENCE, MIN_SEEDS

_PACKAGES = "environment.packages."


def explain(result: Comparison, seeds: Sequence[str], rest: Sequence[str]) -> None:
    """Fill `notes`, and add to `warnings` what the records' origin asks for.

    Args:
        result: with its rows.
        seeds: keys that tell repeats apart.
        rest: keys that differ and are not compared.
    """
    result.notes += [*_repeats(result, seeds, rest), *_tests(result, rest), *_undefined(result)]
    rejecting = sum(cell.metrics.get("requests_rejected", 0) > 0 for cell in result.cells)
    if rejecting:
        result.warnings.append(
            f"{rejecting} of {len(result.cells)} cells rejected requests; their metrics are those of the requests that"
            " ran: compare requests_rejected too"
        )
    revisions = {str(cell.keys.get("environment.git_revision")) for cell in result.cells}
    if len(revisions) > 1:
        short = ", ".join(sorted(revision[:9] for revision in revisions))
        result.warnings.append(f"records of {len(revisions)} code revisions are compared: {short}")
    for package in dict.fromkeys(key for cell in result.cells for key in cell.keys if key.startswith(_PACKAGES)):
        versions = {cell.keys.get(package) for cell in result.cells}
        if len(versions) > 1:
            name = package.removeprefix(_PACKAGES)
            result.warnings.append(f"records of different versions of {name} are compared: {some(versions)}")


def _repeats(result: Comparison, seeds: Sequence[str], rest: Sequence[str]) -> list[str]:
    notes = []
    numbers = {row.n for row in result.rows}
    if max(numbers) < MIN_SEEDS:
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


def _undefined(result: Comparison) -> list[str]:
    total = len(result.cells)
    counts = {metric: sum(metric not in cell.metrics for cell in result.cells) for metric in result.metrics}
    return [f"{metric} is undefined in {n} of {total} cells, which do not count." for metric, n in counts.items() if n]
