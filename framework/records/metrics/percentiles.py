"""How much a percentile is worth: the 99th of six values is more or less their largest one."""

from __future__ import annotations

import math
import re

_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")


def percent_of(statistic: str) -> float | None:
    """99.9 for `p99.9`; None for what is not a percentile, such as `mean`."""
    found = _PERCENTILE.fullmatch(statistic)
    return float(found[1]) if found else None


def needed_count(percent: float) -> int:
    """How many values a percentile needs so that at least one is expected beyond it: 100 for the 99th."""
    beyond = min(percent, 100 - percent)
    return math.ceil(round(100 / beyond, 6)) if beyond > 0 else 1
