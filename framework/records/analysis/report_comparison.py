"""A comparison as a page shows it: a row per group, a value and an effect per metric, and every number below."""

from __future__ import annotations

from typing import Any

from framework.records.analysis.comparison import Comparison, Row
from framework.records.analysis.grouping import show
from framework.records.analysis.tables import MARKS, cells, header, shown_mean, title


def summarized(comparison: Comparison) -> dict[str, Any]:
    """The values that the page's template needs of `comparison`."""
    rows = []
    for group in comparison.groups:
        own = {row.metric: row for row in comparison.rows if row.group is group}
        rows.append(
            {
                "chosen": [show(value) for value in group.called.values()] or ["all"],
                "n": max((row.n for row in own.values()), default=0),
                "cells": [_measured(own.get(metric)) for metric in comparison.metrics],
            }
        )
    columns = [(key, False) for key in comparison.shown or ["cells"]] + [("n", True)]
    for metric in comparison.metrics:
        columns += [(metric, True), ("effect", False)]
    baseline = ", ".join(f"{key}={value}" for key, value in comparison.baseline.items() if key in comparison.shown)
    notes = [f"Effects are relative to {baseline}: difference / mean of the baseline."] if baseline else []
    head = header(comparison)
    return {
        "warnings": comparison.warnings,
        "notes": [*notes, *comparison.notes],
        "columns": columns,
        "rows": rows,
        "metrics": [
            {
                "title": title(metric),
                "columns": [(name or "mark", False) for name in head],
                "rows": [list(zip(cells(row), _raw(row, len(head)), strict=True)) for row in comparison.of(metric)],
            }
            for metric in comparison.metrics
        ],
    }


def _measured(row: Row | None) -> dict[str, Any]:
    if row is None:
        return dict.fromkeys(("value", "mean", "interval", "effect", "effect_value", "hint", "mark"), "")
    *_, mean_interval, difference, difference_interval, effect, mark = cells(row)
    hint = f"difference {difference} {difference_interval}" if difference else ""
    if row.p is not None:
        hint += f", p = {row.p:.2g}, {mark}"
    text = effect if row.mark in ("better", "worse", "differs") else MARKS.get(row.mark, row.mark)
    if row.mark in ("noise", "few seeds") and effect:
        text = f"≈ {effect}" if row.mark == "noise" else f"{effect}, {MARKS[row.mark]}"
    return {
        "value": row.mean.value,
        "mean": shown_mean(row),
        "interval": mean_interval,
        "effect": text,
        "effect_value": "" if row.effect is None else row.effect,
        "hint": hint,
        "mark": row.mark,
    }


def _raw(row: Row, num_columns: int) -> list[Any]:
    """The values to sort by, beside the texts of `tables.cells`; empty where the text says it all."""
    difference = row.difference
    numbers = [row.n, row.mean.value, "", difference.value if difference else "", "", row.effect, ""]
    return [""] * (num_columns - len(numbers)) + ["" if number is None else number for number in numbers]
