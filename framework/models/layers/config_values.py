"""Checked values of a `config.json`. An error names the key, the value and what is expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def integer(values: Mapping[str, Any], key: str, default: int | None = None, *, at_least: int = 1) -> int:
    """`values[key]`; null and an absent key give `default`.

    Raises:
        ValueError: it is not an integer of at least `at_least`, or absent without a default.
    """
    value = values.get(key)
    if value is None:
        value = default
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some exporters write 4096.0
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < 2**63:
        raise ValueError(f"{key}={value!r} must be an integer of at least {at_least}; correct the config")
    return value


def number(values: Mapping[str, Any], key: str, default: float | None = None, *, at_least: float) -> float:
    """Like `integer`, for a finite number."""
    value = values.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value < math.inf:
        raise ValueError(f"{key}={value!r} must be a finite number of at least {at_least:g}; correct the config")
    return float(value)


def flag(values: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """Like `integer`, for true or false."""
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value!r} must be true or false; correct the config")
    return value


def section(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Like `integer`, for an object, which is empty if the key is absent."""
    value = values.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}={value!r} must be an object; correct the config")
    return dict(value)
