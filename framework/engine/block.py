"""A fixed number of token positions of KV memory, and its place in the prefix cache."""

from __future__ import annotations

from dataclasses import dataclass

from framework.interfaces.prompt_keys import Content


@dataclass(slots=True, eq=False)
class Block:
    """Held by `ref` requests; cached when `hash` is set; evictable when cached, unheld and without cached children."""

    id: int
    ref: int = 0
    hash: int | None = None
    content: Content | None = None
    """What it holds, compared at a lookup so that a hash collision cannot serve a wrong block."""
    serial: int = 0
    """Which publication to the prefix cache it is from, counted from 1; 0 when it is not cached."""
    parent: Block | None = None
    children: int = 0
    depth: int = 0
    category: str = ""
    hits: int = 0
    last_used_s: float = 0.0
