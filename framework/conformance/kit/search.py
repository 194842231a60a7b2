"""Searches random examples for one that breaks a rule, and makes it small: Hypothesis, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from framework.conformance.kit.finding import Budget, Violation

T = TypeVar("T")


class _Found(Exception):
    """Raised from one line only: Hypothesis takes failures from different lines for different bugs."""


@dataclass(slots=True)
class SearchResult:
    """The result of a search."""

    num_examples: int
    violation: Violation | None


def search(
    examples: SearchStrategy[T],
    attempt: Callable[[T], None],
    budget: Budget,
    simpler: Callable[[T], Iterable[T]] | None = None,
) -> SearchResult:
    """Try random examples, the same ones every time, until `attempt` raises a `Violation`.

    Returns the violation of the smallest example that was found within `budget`, if any. Examples must be hashable.
    They are made smaller by Hypothesis, or with `simpler`, for examples that are slow to draw.
    """
    failures: dict[T, Violation] = {}  # in the order of their latest attempt: Hypothesis ends with the smallest
    stop_at_s, num_examples = time.monotonic() + budget.search_s, 0

    @settings(
        max_examples=budget.num_examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate] if simpler else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
    )
    @given(examples)
    def try_one(example: T) -> None:
        nonlocal stop_at_s, num_examples
        if num_examples and time.monotonic() > stop_at_s and example not in failures:
            return  # out of time: neither a new example nor a smaller one is wanted
        num_examples += not failures
        try:
            attempt(example)
        except Violation as violation:
            if not failures:
                stop_at_s = time.monotonic() + budget.shrink_s
            failures.pop(example, None)
            failures[example] = violation
        else:
            return
        raise _Found

    violation = None
    try:
        try_one()
    except _Found:
        smallest, violation = list(failures.items())[-1]
        if simpler:
            violation = _shrink(smallest, violation, attempt, simpler, budget)
    except Flaky:
        last = list(failures.values())[-1]
        violation = Violation(last.rule, f"{last.message}\n(the same case fails at one time and passes at another)")
    return SearchResult(num_examples, violation)


def _shrink(
    smallest: T, violation: Violation, attempt: Callable[[T], None], simpler: Callable[[T], Iterable[T]], budget: Budget
) -> Violation:
    """Step to a simpler example that breaks the same rule until there is none, or no time."""
    stop_at_s = time.monotonic() + budget.shrink_s
    found = True
    while found:
        found = False
        for example in simpler(smallest):
            if time.monotonic() > stop_at_s:
                return violation
            try:
                attempt(example)
            except Violation as other:
                if other.rule == violation.rule:
                    smallest, violation, found = example, other, True
                    break
    return violation
