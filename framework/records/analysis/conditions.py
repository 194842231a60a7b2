"""What really ran, in addition to what was asked for: sizes, types, kernels, files, code and machine.

Two cells may have asked for the same and got another: `auto` resolved otherwise, less free memory, a newer package.
What differs there and is not what a comparison is about is named, since the effect may come from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from framework.records.analysis.cells import Cell, Value
from framework.records.analysis.grouping import Group, context, is_context, is_seed, some

_EFFECTIVE = "effective."
_OUTCOMES = (
    *(
        "load_s",
        "compile_s",
        "weights_reused",
        "kv_error",
        "attention_error",
        "activation_gib",
        "graphs_captured",
        "graph_capture_s",
    ),
    *(
        "graph_memory_gib",
        "requests_of_replicas",
        "held_by_router",
        "refused_by_router",
        "ranks",
        "attention_passed_over",
        "allreduce_passed_over",
        "attention_exact",
        "quality_error",
    ),
    *("not_simulated", "model_source"),
)
"""Parts of `effective` that were measured in a run, or that say in words why something else was chosen."""
_REVISION, _CODE = "environment.git_revision", "environment.code."
_FRAMEWORK = f"{_CODE}framework"
"""Hashes of sources: those of the framework and, by kind, those of the chosen plugin."""
_MACHINE = ("cpu", "cpu_cores", "device_memory_gib", "driver", "platform")
"""Parts of `environment` that change no number of a simulation."""
_NOT_CONDITIONS = ("git_dirty", "device", "device_name")
"""The device is part of the context. Uncommitted code is told by its hash."""


def unlike(pairs: Iterable[tuple[Group, Group | None]], by: Sequence[str]) -> list[str]:
    """What ran differently, within a group or between it and its baseline, and is not among the compared keys.

    Args:
        pairs: each group and the one that it is compared with.
        by: the compared keys.
    """
    found: dict[str, str] = {}
    for group, base in pairs:
        axes = _axes(by, group, base)
        for key in dict.fromkeys(key for side in (group, base or group) for cell in side.cells for key in cell.keys):
            if key in found or not _is_condition(key) or not axes.isdisjoint(re.split(r"[./]", key)):
                continue
            first, second = ({_value(cell, key) for cell in side.cells} for side in (group, base or group))
            if first != second:
                found[key] = f"{key} ({some(first)} in {group.name} against {some(second)})"
            elif len(first) > 1:
                found[key] = f"{key} ({some(first)} within {group.name})"
    return list(found.values())


def _value(cell: Cell, key: str) -> Value:
    """A cell that does not report a condition has what it asked for, such as the router of a single replica."""
    return cell.keys.get(key, cell.keys.get(key.removeprefix(_EFFECTIVE)))


def _is_condition(key: str) -> bool:
    if not key.startswith(_EFFECTIVE) or is_context(key) or key.startswith(f"{_EFFECTIVE}workload."):
        return False
    return key.removeprefix(_EFFECTIVE).partition(".")[0] not in _OUTCOMES


def _axes(by: Sequence[str], group: Group, base: Group | None) -> set[str]:
    """The names that the comparison is about: `executor.dtype` explains `effective.dtype`, `attention` its own.

    An arm of a study stands for the keys that it sets.
    """
    keys = set(by)
    if base is not None and base is not group:
        one, other = group.cells[0].keys, base.cells[0].keys
        asked = {key for key in {*one, *other} if not key.startswith((_EFFECTIVE, "environment."))}
        keys |= {key for key in asked if one.get(key) != other.get(key) and not is_seed(key)}
    return {part for key in keys for part in (key.partition(".")[0], key.rpartition(".")[2])} - {"executor", "engine"}


def code_and_versions(cells: Sequence[Cell]) -> Iterator[str]:
    """A warning for each part of code, packages and machine that was not the same for all of `cells`."""
    values = _environment(cells)
    revision, source = (values.get(key, {None}) for key in (_REVISION, _FRAMEWORK))
    if len(revision) > 1 and (len(source) > 1 or None in source):
        yield f"records of {len(revision)} code revisions are compared: {_short(revision)}"
    elif len(source) > 1:
        yield f"records of {len(source)} versions of the code are compared (hashes of its files: {_short(source)})"
    for key in [key for key in values if key.startswith(_CODE) and key != _FRAMEWORK]:
        kind = key.removeprefix(_CODE)
        for name in dict.fromkeys(cell.keys.get(kind) for cell in cells):
            found = {cell.keys.get(key) for cell in cells if cell.keys.get(kind) == name}
            if len(found) > 1:
                yield f"records of {len(found)} versions of {kind}={name} are compared (hashes: {_short(found)})"
    simulated = all(cell.keys.get("executor") == "simulated" for cell in cells)
    told = context(cells)
    for key, found in values.items():
        name = key.removeprefix("environment.").removeprefix("packages.")
        if (
            len(found) < 2
            or key == _REVISION
            or key.startswith(_CODE)
            or key in told
            or name in _NOT_CONDITIONS
            or (name in _MACHINE and simulated)
        ):
            continue
        kind = "machines that differ in" if name in _MACHINE else "different versions of"
        yield f"records of {kind} {name} are compared: {some(found)}"


def _short(hashes: set[Value]) -> str:
    return ", ".join(sorted(str(one)[:9] for one in hashes))


def _environment(cells: Sequence[Cell]) -> Mapping[str, set[Value]]:
    keys = dict.fromkeys(key for cell in cells for key in cell.keys if key.startswith("environment."))
    return {key: {cell.keys.get(key) for cell in cells} for key in keys}
