"""A fixed number of token positions of KV memory, and its place in the prefix cache."""

from __future__ import annotations

from dataclasses import dataclass

from framework.interfaces.prompt_keys import Content


@dataclass(slots=True, eq=False)
class Block:
    """A block that `ref` requests hold. It is cached if `hash` is set, and evictable if nothing holds it then."""

    id: int
    ref: int = 0
    hash: int | None = None
    content: Content | None = None
    """The content of the block. A lookup compares it, so that a hash collision cannot serve a wrong block."""
    serial: int = 0
    """The number of the publication that put it into the prefix cache, counted from 1; 0 if it is not cached."""
    parent: Block | None = None
    children: int = 0
    depth: int = 0
    category: str = ""
    hits: int = 0
    last_used_s: float = 0.0
