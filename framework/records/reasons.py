"""Reasons of cells, each told once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_SHOWN = 10


def once_per_reason(cells: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Each reason of `cells` (name and reason) once, with the names of the cells that have it."""
    names: dict[str, list[str]] = {}
    for name, reason in cells:
        names.setdefault(reason, []).append(name)
    return list(names.items())


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are if these are not all."""
    return ", ".join(names[:_SHOWN]) + ("" if len(names) <= _SHOWN else f", ... ({len(names)} cells)")
