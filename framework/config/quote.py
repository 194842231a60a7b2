"""Values in the grammar of Hydra's overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def quote(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, str):
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quote(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(quote(inner) for inner in value) + "]"
    return json.dumps(value)
