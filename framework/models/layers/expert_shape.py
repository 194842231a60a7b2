"""The shape of a mixture of experts. Loads no torch, since a simulation reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framework.models.layers.config_values import integer


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Feed-forward blocks of which a router chooses a few for each token (Shazeer et al. 2017, arXiv 1701.06538)."""

    number: int
    per_token: int
    size: int
    """The features between the projections of one expert, before any split over ranks"""
    layers: tuple[int, ...]
    """The layers that have experts; the others have one block for all tokens"""
    normalise: bool
    """Whether the weights of the chosen experts are made to add up to 1"""
    router: str
    """The router's name in the checkpoint, below the layer's"""
    expert: str
    """The name of an expert, with its number as `{}`"""
    projections: tuple[str, str, str]
    """The names of an expert's gate, up and down projection"""

    @property
    def router_name(self) -> str:
        return f"{self.router}.weight"

    def parameters(self, hidden_size: int, number: int) -> int:
        """The weights of the router and of `number` experts."""
        return hidden_size * (self.number + 3 * number * self.size)


def expert_counts(values: Mapping[str, Any], key: str) -> tuple[int, int]:
    """How many experts there are (`key`), and how many of them a token has.

    Raises:
        ValueError: a number is missing, below 1, or a token has more experts than there are.
    """
    number, per_token = integer(values, key), integer(values, "num_experts_per_tok")
    if per_token > number:
        raise ValueError(f"num_experts_per_tok={per_token} must be at most {key}={number}; correct the config")
    return number, per_token
