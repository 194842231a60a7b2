"""The search for a capacity: doubling until the goal is missed, then bisection. What it asks next follows from the
outcomes alone, so that a search that was cut short goes on from its records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DIGITS = 4
"""Significant digits of a load, so that it reads well and a resumed search asks for the same ones."""
FLOODED = 1 / 8
SHORT = 0.9
"""A run that serves a smaller share of its load than this ends before its queue is as long as it would get."""
_Z95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for, and where."""

    goal: float
    """The share of requests that have to meet their objectives."""
    tolerance: float
    """The width of the last bracket over its lower end."""
    start: float
    lowest: float
    highest: float
    is_whole: bool
    """Whether loads are whole numbers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The runs at one load: how many requests each had, and how many of these met their objectives."""

    met: tuple[int, ...]
    total: tuple[int, ...]
    kept_up: float = 1.0
    """Requests served over requests that came, per second. In a run that is long against its latencies it is near 1."""

    @property
    def share(self) -> float:
        """The share over all runs."""
        return sum(self.met) / sum(self.total)

    @property
    def is_flooded(self) -> bool:
        """Whether requests came so much faster than they were served that all were there before the run was well under
        way: a higher load would be the same run."""
        return self.kept_up <= FLOODED

    def reaches(self, goal: float) -> bool:
        """Whether the goal is met over all runs. This decides where the search goes on."""
        return sum(self.met) >= goal * sum(self.total) * (1 - 1e-12)

    def is_certain(self, goal: float) -> bool:
        """Whether chance is an unlikely reason: the runs agree, and 95 % of such samples lie on one side of the goal.

        The interval takes requests as independent. Neighbours in one queue are not, which is why runs have to agree.
        """
        agree = {met >= goal * total * (1 - 1e-12) for met, total in zip(self.met, self.total, strict=True)}
        if len(agree) > 1:
            return False
        low, high = wilson(sum(self.met), sum(self.total))
        return goal < low or goal > high or (goal == 1 and self.share == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Attributes that no load supports are None."""

    capacity: float | None
    """The highest load that was tried and met the goal."""
    missed_at: float | None
    """The lowest load that missed it, at most the tolerance above `capacity`."""
    certain_below: float | None
    """The highest load up to which every load that was tried met the goal for certain."""
    certain_above: float | None
    """The lowest load from which on every load that was tried missed it for certain."""
    is_noisy: bool
    """Whether noise, and not the tolerance, limits what is known."""


def wilson(successes: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    share, z2 = successes / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return centre - half, centre + half


def next_load(search: Search, outcomes: Mapping[float, Outcome]) -> float | None:
    """The load to try next; None when the search has ended."""
    met, missed = _sides(search, outcomes)
    if not met and not missed:
        return search.start
    if not missed:
        if met[-1] >= search.highest or outcomes[met[-1]].is_flooded:
            return None
        return min(search.highest, rounded(search.is_whole, met[-1] * 2))
    if not met:
        return None if missed[0] <= search.lowest else max(search.lowest, rounded(search.is_whole, missed[0] / 2))
    low, high = met[-1], missed[0]
    if high - low <= search.tolerance * low:
        return None
    middle = rounded(search.is_whole, math.sqrt(low * high))
    return middle if low < middle < high else None


def answer(search: Search, outcomes: Mapping[float, Outcome]) -> Answer:
    """What the outcomes of an ended search say."""
    met, missed = _sides(search, outcomes)
    certain = {load: outcome.is_certain(search.goal) for load, outcome in outcomes.items()}
    return Answer(
        capacity=met[-1] if met else None,
        missed_at=missed[0] if missed else None,
        certain_below=_last_certain(met, certain),
        certain_above=_last_certain(missed[::-1], certain),
        is_noisy=bool(met and missed) and not (certain[met[-1]] and certain[missed[0]]),
    )


def _last_certain(loads: Sequence[float], certain: Mapping[float, bool]) -> float | None:
    last = None
    for load in loads:
        if not certain[load]:
            break
        last = load
    return last


def _sides(search: Search, outcomes: Mapping[float, Outcome]) -> tuple[list[float], list[float]]:
    """The loads that met the goal and those that missed it, ascending."""
    met = sorted(load for load, outcome in outcomes.items() if outcome.reaches(search.goal))
    missed = sorted(outcomes.keys() - met)
    assert not met or not missed or met[-1] < missed[0], "a load above a missed one was tried"
    return met, missed


def rounded(is_whole: bool, load: float) -> float:
    """The nearest load that can be tried."""
    return max(1.0, float(round(load))) if is_whole else float(f"{load:.{DIGITS}g}")
