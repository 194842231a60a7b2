"""Which keys tell cells apart, which of them are seeds, and which ones make cells not comparable."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from framework.records.analysis.cells import Cell, Value, natural

_ABSENT = "<absent>"
ARM = "study.arm"
_WITHOUT_EFFECT = ("tracker", "record", "plugins", "objective", "study", "effective", "environment")
_OF_A_SEED = ("workload.requests_sha256", "workload.first_bad_line")
"""The recorded facts about a workload that may differ between seeds or that name a file by its path."""
_DEVICE_KEYS = ("executor", "executor.hardware", "effective.device", "effective.hardware", "environment.device_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cells that share the values of the compared keys."""

    values: dict[str, Value]
    """The values of the compared keys, in the order of the keys."""
    cells: list[Cell]
    shown: Sequence[str] | None = None
    """The keys that name the group, if there are too many to show all; None for all."""

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={show(value)}" for key, value in self.called.items()) or "all cells"

    @property
    def called(self) -> dict[str, Value]:
        """The compared keys that a reader sees, and their values."""
        return self.values if self.shown is None else {key: self.values[key] for key in self.shown}

    @property
    def label(self) -> str:
        """A short name for figures: the values only."""
        return " / ".join(f"{show(v)}" for v in self.called.values()) or "all cells"


def show(value: Value) -> str:
    """A configuration value in the form of the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_seed(key: str) -> bool:
    """Whether `key` only tells repeats apart."""
    return key.rpartition(".")[2] == "seed"


def seed_of(cell: Cell, seeds: Sequence[str]) -> tuple[Value, ...]:
    """Which repeat `cell` is, given by its values of the keys that are seeds."""
    return tuple(cell.keys.get(key) for key in seeds)


def by_seed(cells: Sequence[Cell], metric: str, seeds: Sequence[str]) -> dict[tuple[Value, ...], float]:
    """One observation per seed: cells that share a seed are not independent repeats, so their mean counts."""
    found: dict[tuple[Value, ...], list[float]] = {}
    for cell in cells:
        if metric in cell.metrics:
            found.setdefault(seed_of(cell, seeds), []).append(cell.metrics[metric])
    return {seed: sum(values) / len(values) for seed, values in found.items()}


def differing_keys(cells: Sequence[Cell]) -> list[str]:
    """Configuration keys, including seeds, with more than one value.

    A parameter of a plugin (`scheduler.victim`) counts if it differs among cells of the same plugin: that two plugins
    have other parameters is what their names say already. Keys that cannot change a result, such as the tracker's, do
    not count. The device that ran counts like a parameter of the executor. Where a study names its arms, the keys that
    an arm sets do not count beside its name.
    """
    found = []
    has_arms = len({cell.keys.get(ARM) for cell in cells}) > 1
    for key in _all_keys(cells):
        group = "executor" if key in _DEVICE_KEYS else key.partition(".")[0]
        if (group in _WITHOUT_EFFECT and key != ARM) or (key != "seed" and is_seed(key) and _follows_seed(key, cells)):
            continue
        scopes: dict[tuple[Value, Value], set[Value]] = {}
        for cell in cells:
            scope = cell.keys.get(group) if key != group else None
            arm = cell.keys.get(ARM) if has_arms and key != ARM else None
            scopes.setdefault((scope, arm), set()).add(cell.keys.get(key, _ABSENT))
        if any(len(values) > 1 for values in scopes.values()):
            found.append(key)
    return found


def context(cells: Sequence[Cell]) -> dict[str, set[Value]]:
    """The values of the context, of keys that at least one cell has; on a CPU, which one it was belongs to it."""
    found: dict[str, set[Value]] = {}
    for cell in cells:
        on_cpu = str(cell.keys.get("effective.device", "")).startswith("cpu") and cell.keys.get("executor") == "local"
        for key, value in cell.keys.items():
            if is_context(key) or (key == "environment.cpu" and on_cpu):
                found.setdefault(key, set()).add(value)
    return found


def is_context(key: str) -> bool:
    """Whether `key` belongs to what has to be equal for numbers to be comparable: workload, model and device.

    What became of the workload belongs to it (the hash of a trace, how many of its lines were left out), except for
    what may follow the seed.
    """
    if key in _DEVICE_KEYS:
        return True
    what = key.removeprefix("effective.inputs.") if key.startswith("effective.inputs.") else key
    what = what.removeprefix("effective.") if what.startswith("effective.workload.") else what
    return what.partition(".")[0] in ("workload", "model") and not is_seed(what) and what not in _OF_A_SEED


def context_differences(one: Sequence[Cell], other: Sequence[Cell]) -> list[str]:
    """The keys of the context whose values differ between `one` and `other`, with both, for a message."""
    first, second = context(one), context(other)
    return [
        f"{key} ({some(first.get(key, set()))} against {some(second.get(key, set()))})"
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]


def make_groups(cells: Sequence[Cell], by: Sequence[str]) -> list[Group]:
    """`cells` by their values of `by`, in natural order of the values."""
    groups: dict[tuple[Value, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.keys.get(key, "-") for key in by), []).append(cell)
    ordered = sorted(groups, key=lambda values: [natural(value) for value in values])
    return [Group(values=dict(zip(by, values, strict=True)), cells=groups[values]) for values in ordered]


def known_key(name: str, cells: Sequence[Cell]) -> str:
    """The spelling of `name` in the cells.

    Raises:
        ValueError: no cell has it; names those that differ, the closest first.
    """
    keys = _all_keys(cells)
    if (short := name.removesuffix(".name")) in keys:
        return short
    if name in keys:
        return name
    close = difflib.get_close_matches(name, keys, n=3)
    differing = [key for key in differing_keys(cells) if key not in close]
    hint = ", ".join([*close, *differing]) or "none: all cells have the same configuration"
    raise ValueError(f"no record has the key {name!r}; keys that differ or come close: {hint}")


def parse_baseline(texts: Iterable[str], by: Sequence[str], cells: Sequence[Cell]) -> dict[str, str]:
    """`["scheduler=fifo,eviction=lru"]` as a mapping of keys to values, which are still text.

    Raises:
        ValueError: not of that form, or a key or value that no group has.
    """
    wanted: dict[str, str] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"baseline {part!r} must be KEY=VALUE, such as scheduler=prefill_first")
        key = known_key(name.strip(), cells)
        if key not in by:
            raise ValueError(f"baseline {part!r}: {key} is not compared; compared are {', '.join(by) or 'no keys'}")
        values = sorted({show(cell.keys.get(key, "-")) for cell in cells}, key=natural)
        if value.strip() not in values:
            raise ValueError(f"baseline {part!r}: no record has it; {key} is one of {', '.join(values)}")
        wanted[key] = value.strip()
    return wanted


def counterpart(group: Group, baseline: Mapping[str, str], groups: Sequence[Group]) -> Group | None:
    """The group with the baseline's values and, in every other key, those of `group`.

    Where there is none: the only one that differs from that in workload, model or device alone.
    """
    wanted = {key: baseline.get(key, show(value)) for key, value in group.values.items()}

    def differs(other: Group) -> set[str]:
        return {key for key, value in other.values.items() if show(value) != wanted[key]}

    for other in groups:
        if not differs(other):
            return other
    others = [other for other in groups if all(is_context(key) and key not in baseline for key in differs(other))]
    return others[0] if len(others) == 1 else None


def _follows_seed(key: str, cells: Sequence[Cell]) -> bool:
    return all(cell.keys.get(key) == cell.keys.get("seed") for cell in cells)


def _all_keys(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(key for cell in cells for key in cell.keys))


def some(values: set[Value], at_most: int = 4) -> str:
    """The first of `values`, for a message."""
    texts = sorted(map(show, values), key=natural)
    return ", ".join(texts[:at_most]) + (", ..." if len(texts) > at_most else "") or "absent"
