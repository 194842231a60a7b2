"""What the HTTP process is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, frozen=True, kw_only=True)
class FrontSettings:
    """Limits of the server, and what it has to know of the model."""

    model_name: str
    model: dict[str, Any]
    """The model's configuration, for its tokenizer."""
    vocab_size: int
    max_model_len: int
    max_body_bytes: int
    max_streams: int
    read_limit_s: float
    """How many seconds a client has to send its headers. The body has a limit of the same length."""
    started: float
    """Unix time."""
    version: str
    policies: dict[str, str] = field(default_factory=dict)
