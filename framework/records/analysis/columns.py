"""Which of many differing keys a table shows. Runs that were made one by one often differ in dozens."""

from __future__ import annotations

from collections.abc import Sequence

from framework.records.analysis.grouping import Group, show

MAX_COLUMNS = 8
_FIRST = (
    *(
        "study.arm",
        "scheduler",
        "eviction",
        "attention",
        "sampler",
        "graph",
        "router",
        "predictor",
        "cost_model",
        "model",
        "workload",
    ),
    *("executor", "executor.hardware", "environment.device_name", "workload.path", "workload.rate_per_s"),
    *("workload.num_requests", "executor.replicas", "executor.tp", "executor.dtype", "engine.num_blocks"),
)
"""The keys that people compare by, before all others."""


def columns(groups: Sequence[Group], by: Sequence[str], at_most: int = MAX_COLUMNS) -> list[str]:
    """The keys of `by` that tell most, in their order. All of them if there are few, else `at_most`.

    First come those that tell groups apart which look the same so far, then what people compare by.
    """
    if len(by) <= at_most:
        return list(by)
    ranked = sorted(by, key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), by.index(key)))
    chosen: list[str] = []
    looks: list[tuple[str, ...]] = [()] * len(groups)
    while len(set(looks)) < len(groups) and len(chosen) < at_most:
        gains = {
            key: len({(*look, show(group.values[key])) for look, group in zip(looks, groups, strict=True)})
            for key in ranked
            if key not in chosen
        }
        best = next(
            (key for key in gains if key in _FIRST and gains[key] > len(set(looks))), max(gains, key=gains.__getitem__)
        )
        if gains[best] == len(set(looks)):
            break
        chosen.append(best)
        looks = [(*look, show(group.values[best])) for look, group in zip(looks, groups, strict=True)]
    chosen += [key for key in ranked if key not in chosen][: at_most - len(chosen)]
    return [key for key in by if key in chosen]
