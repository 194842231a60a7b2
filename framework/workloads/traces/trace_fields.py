"""Checked values out of a line of a trace file. Every error names the field, its value and what it must be."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from framework.workloads.arrivals import MAX_SECONDS


def json_object(line: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The object on `line`, which has every `required` key and no key beyond those and `optional`.

    Raises:
        ValueError: for anything else.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno}); expected an object") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read (nested too deeply); expected an object") from error
    if not isinstance(row, dict):
        raise ValueError(f"expected an object with {', '.join(required)}, not {type(row).__name__}")
    if missing := [key for key in required if key not in row]:
        raise ValueError(f"no {missing[0]!r}; expected {', '.join(required)}")
    if unknown := [key for key in row if key not in required and key not in optional]:
        raise ValueError(f"unknown key {unknown[0]!r}; expected {', '.join((*required, *optional))}")
    return row


class CsvColumns:
    """The columns of a CSV file by their names in its header, whatever their order; others are left unread.

    Raises:
        ValueError: if the header lacks one of `names`.
    """

    def __init__(self, header: str, names: Sequence[str]) -> None:
        found = [name.strip() for name in _split(header)]
        if missing := [name for name in names if name not in found]:
            raise ValueError(f"no column {missing[0]!r} in the header {header.strip()!r}; expected {', '.join(names)}")
        self.num_columns = len(found)
        self.places = [found.index(name) for name in names]

    def values(self, line: str) -> list[str]:
        """The texts of the named columns, in the order of their names."""
        values = _split(line)
        if len(values) != self.num_columns:
            raise ValueError(f"has {len(values)} columns where the header has {self.num_columns}")
        return [values[place].strip() for place in self.places]


def _split(line: str) -> list[str]:
    try:
        return next(csv.reader((line,)), [])
    except csv.Error as error:  # such as a field of more than 131,072 characters
        raise ValueError(f"not CSV ({error}); expected values between commas") from error


def whole(name: str, value: object, at_least: int) -> int:
    """`value`, an integer of at least that."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}={short(value)} must be an integer")
    if value < at_least:
        raise ValueError(f"{name}={value} must be at least {at_least}")
    return value


def whole_text(name: str, said: str, at_least: int) -> int:
    """The integer that `said` spells, of at least that."""
    if not re.fullmatch(r"[+-]?\d{1,18}", said):
        raise ValueError(f"{name}={said!r} must be an integer")
    return whole(name, int(said), at_least)


def text(name: str, value: object) -> str:
    """`value`, a string."""
    if not isinstance(value, str):
        raise ValueError(f"{name}={short(value)} must be a string")
    return value


def seconds(name: str, value: object) -> float:
    """`value`, a finite number of at least 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name}={short(value)} must be a finite number")
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{name}={value} must be at least 0 and at most {MAX_SECONDS:g} s")
    return float(value)


def seconds_text(name: str, said: str) -> float:
    """The finite number of at least 0 that `said` spells."""
    try:
        value = float(said)
    except ValueError as error:
        raise ValueError(f"{name}={said!r} must be a number") from error
    return seconds(name, value)


def short(value: object, limit: int = 60) -> str:
    """`value` for a message."""
    shown = repr(value)
    return shown if len(shown) <= limit else shown[:limit] + "..."
