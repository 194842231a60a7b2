"""What a check is, and what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


class Violation(Exception):
    """A rule does not hold.

    Args:
        rule: what should hold, in words, as in the first column of the report.
        message: what happened instead.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule, self.message = rule, message


class NotApplicable(Exception):
    """A check that cannot be made here. The message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one rule."""

    rule: str
    status: Literal["holds", "fails", "skipped"]
    detail: str = ""
    """What was tried or measured. For a rule that fails, the smallest case found, over several lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limits of what a check may cost. The defaults keep any plugin under 60 s on two cores."""

    num_examples: int = 60
    search_s: float = 12.0
    """The time for one search for a counterexample. After that no further example is tried."""
    shrink_s: float = 8.0
    """The time for making a counterexample smaller."""
    num_cost_blocks: int = 1_000_000
    """The number of cached blocks in the cache whose eviction decisions are timed."""
    num_draws: int = 20_000
    """The number of samples of one chi-square test."""


@dataclass(frozen=True, slots=True)
class Check:
    """One or several rules that are tried together.

    `run` returns the detail shown for a rule that holds, or raises `Violation` or `NotApplicable`.
    """

    rule: str
    run: Callable[[], str]
