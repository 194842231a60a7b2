"""The data of a comparison: a row for each metric of each group of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from framework.records.analysis.cells import Cell, Damaged
from framework.records.analysis.grouping import Group
from framework.records.analysis.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd

Correction = Literal["none", "holm"]
Test = Literal["paired", "welch", ""]
Mark = Literal["baseline", "noise", "better", "worse", "differs", "same", "few seeds", "unlike", ""]


@dataclass(slots=True, kw_only=True)
class Row:
    """One metric of one group."""

    group: Group
    metric: str
    n: int
    """The number of seeds for which the metric is defined."""
    mean: Estimate
    baseline: Group | None = None
    difference: Estimate | None = None
    """The group's mean less that of the baseline; None for the baseline itself, or if there is no baseline."""
    test: Test = ""
    num_compared: int = 0
    """The number of pairs or, for Welch's test, the smaller number of seeds."""
    effect: float | None = None
    """The difference as a share of the baseline's mean over what was compared."""
    p: float | None = None
    """The p-value of the difference, corrected if that was asked for."""
    mark: Mark = ""
    few: int | None = None
    """The number of values in a cell if the metric is a percentile and there are too few of them for it."""


@dataclass(slots=True, kw_only=True)
class Comparison:
    """The result of `compare`."""

    by: list[str]
    shown: list[str]
    """The keys of `by` that have columns in a table."""
    baseline: dict[str, str]
    seeds: list[str]
    """The keys that tell repeats apart."""
    metrics: list[str]
    correction: Correction
    cells: list[Cell]
    """The completed cells, which were compared."""
    groups: list[Group]
    rows: list[Row] = field(default_factory=list)
    not_completed: list[Cell] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Warnings: what may make the numbers mean something else than they seem to."""
    notes: list[str] = field(default_factory=list)
    """Notes: how the numbers were made."""

    def of(self, metric: str) -> list[Row]:
        """The rows of one metric, in order of the groups."""
        return [row for row in self.rows if row.metric == metric]

    def frame(self) -> pd.DataFrame:
        """A row per group and metric: the compared keys, `metric n mean low high`, the difference to the baseline."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.rows])


def _flat(row: Row) -> dict[str, Any]:
    difference, nothing = row.difference, Estimate(float("nan"))
    d = difference or nothing
    return {
        **row.group.values,
        "metric": row.metric,
        "n": row.n,
        "mean": row.mean.value,
        "low": row.mean.low,
        "high": row.mean.high,
        "baseline": row.baseline.name if row.baseline else None,
        "difference": d.value if difference else None,
        "difference_low": d.low,
        "difference_high": d.high,
        "effect": row.effect,
        "p": row.p,
        "test": row.test,
        "num_compared": row.num_compared,
        "mark": row.mark,
        "too_few_values": row.few,
    }
