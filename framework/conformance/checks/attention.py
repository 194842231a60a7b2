"""The checks of attention backends: random mixed batches against explicit loops in float64."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from framework.conformance.checks.attention_cases import Problem, Target, check, problems
from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.search import search
from framework.conformance.kit.time_limit import TimeLimitError, time_limit
from framework.interfaces.attention import AttentionBackend, AttentionSpec
from framework.registry import ATTENTIONS

RULE = "equals plain attention on random mixed batches"
APPROXIMATE_RULE = "gives finite numbers of the right shape on random mixed batches"
"""Of a backend that says that it is not exact. Its deviation is reported."""

_LIMIT_S = 30.0
"""The limit for one batch. It is far more than a compiler takes on a busy machine, so only what hangs is ended."""

_NAMED = (
    ((0, 1),),
    ((0, 40),),
    ((0, 33), (0, 7)),
    ((64, 17),),
    ((31, 1), (32, 1), (33, 1)),
    ((299, 1), (1, 1), (150, 1), (298, 1)),
    ((100, 1), (0, 1), (16, 2), (0, 30), (50, 9)),
    ((2100, 1), (3, 5)),
)


def checks(
    choice: Mapping[Any, Any], build: Callable[[AttentionSpec], AttentionBackend], budget: Budget
) -> list[Check]:
    """The checks of a backend, on each device of this machine that it supports."""
    rule = RULE if ATTENTIONS.get(choice["name"]).exact else APPROXIMATE_RULE
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        one
        for device in devices
        for one in (
            Check(f"{rule} ({device})", lambda d=device: _random(f"{rule} ({d})", choice["name"], d, build, budget)),  # type: ignore[misc]
            Check(f"... and on batches at the edges ({device})", lambda d=device: _named(choice["name"], d, build)),  # type: ignore[misc]
        )
    ]


def _random(
    rule: str, name: str, device: str, build: Callable[[AttentionSpec], AttentionBackend], budget: Budget
) -> str:
    reasons: set[str] = set()
    deviations: list[float | None] = []

    def attempt(problem: Problem) -> None:
        reason = _unsupported(name, problem)
        if reason is None:
            deviations.append(_try(rule, build, problem))
        else:
            reasons.add(reason)

    result = search(problems(_target(name, device)), attempt, budget)
    if result.violation is not None:
        raise result.violation
    num_tried = len(deviations)
    if not num_tried:
        raise NotApplicable("; ".join(sorted(reasons)[:2]))
    return f"{num_tried} random batches{_told(deviations)}" + (
        f"; {result.num_examples - num_tried} of unsupported shapes" * bool(reasons)
    )


def _told(deviations: list[float | None]) -> str:
    """How far a backend is off that says that it is not exact; empty for any other."""
    measured = [one for one in deviations if one is not None]
    if not measured:
        return ""
    return (
        f"; it is not exact, and says so: relative error of the output up to {max(measured):.2g}, "
        f"median {statistics.median(measured):.2g}"
    )


def _named(name: str, device: str, build: Callable[[AttentionSpec], AttentionBackend]) -> str:
    deviations: list[float | None] = []
    reason = None
    target = _target(name, device)
    for rows in _NAMED:
        for dtype in target.dtypes:
            problem = Problem(target, dtype, 6, 2, 64, 16, rows, num_padding=2, seed=len(rows))
            reason = _unsupported(name, problem)
            if reason is None:
                deviations.append(_try(f"... and on batches at the edges ({device})", build, problem))
    if not deviations:
        raise NotApplicable(reason or "no batch was supported")
    return f"{len(deviations)} batches, one of 2,101 tokens{_told(deviations)}"


def _try(rule: str, build: Callable[[AttentionSpec], AttentionBackend], problem: Problem) -> float | None:
    try:
        with time_limit(_LIMIT_S):
            return check(build, problem)
    except (AssertionError, TimeLimitError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()][:8]
        raise Violation(rule, "\n".join([f"{type(error).__name__}: ", *lines, problem.describe()])) from error


def _unsupported(name: str, problem: Problem) -> str | None:
    reason: str | None = ATTENTIONS.get(name).unsupported_reason(problem.spec)
    return reason


def _target(name: str, device: str) -> Target:
    if device == "cuda":
        return Target(name, device, dtypes=(torch.bfloat16, torch.float16), block_sizes=(16, 32, 64, 256))
    return Target(name, device)
