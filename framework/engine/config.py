"""The limits of one engine, as numbers. Nothing is left to be chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineConfig:
    """What the step loop may do in one step, and how its KV memory is cut.

    Raises:
        ValueError: a value is out of range. The message names the key that sets it.
    """

    block_size: int
    """Token positions per KV block."""
    max_num_seqs: int
    """The largest number of requests that run at once."""
    max_num_batched_tokens: int
    """The largest number of tokens per step."""
    overlap: int = 1
    """Steps that may be planned and submitted beyond the one being collected: 0 waits for each step, 1 hides planning
    behind the device."""
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        for name in ("block_size", "max_num_seqs", "max_num_batched_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"engine.{name}={getattr(self, name)} must be at least 1")
        if self.overlap < 0:
            raise ValueError(f"engine.overlap={self.overlap} must be at least 0")
