"""One request as a line of a trace describes it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class TraceRow:
    """One request of a trace. `time_s` counts from whatever the file counts from."""

    time_s: float
    prompt_tokens: int
    output_tokens: int
    keys: array[int] = field(default_factory=lambda: array("q"))
    """What the prompt shares with others, a key for each `key_tokens` tokens of it from its beginning."""
    key_tokens: int = 0
    client: str = ""
    category: str = ""
    session: str = ""
    priority: int = 0
    objectives: Mapping[str, Any] = field(default_factory=dict)
    """By the name of their field in a `RequestSpec`."""
    max_tokens: int | None = None
    """What its sender stated as the limit; `output_tokens` is how long it got."""
    line: int = 0
    """In the file, from 1."""
