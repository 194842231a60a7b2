"""Where a layer has norms."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """The places in a layer that have an RMSNorm, each with the norm's name in the checkpoint; None for no norm."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    """On what attention adds to the residual stream"""
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None
    """On what the feed-forward block adds to the residual stream"""

    @property
    def number(self) -> int:
        """How many norms a layer has."""
        return sum(getattr(self, field.name) is not None for field in dataclasses.fields(self))
