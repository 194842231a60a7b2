"""The checks of attention backends: random mixed batches against explicit loops in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from framework.conformance.checks.attention_cases import Problem, Target, check, problems
from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.search import search
from framework.conformance.kit.time_limit import TimeLimitError, time_limit
from framework.interfaces.attention import AttentionBackend, AttentionSpec

RULE = "equals plain attention on random mixed batches"

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
)


def checks(
    choice: Mapping[Any, Any], build: Callable[[AttentionSpec], AttentionBackend], budget: Budget
) -> list[Check]:
    """The checks of a backend, on each device of this machine that it supports."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        one
        for device in devices
        for one in (
            Check(f"{RULE} ({device})", lambda d=device: _random(choice["name"], d, build, budget)),  # type: ignore[misc]
            Check(f"... and on batches at the edges ({device})", lambda d=device: _named(choice["name"], d, build)),  # type: ignore[misc]
        )
    ]


def _random(name: str, device: str, build: Callable[[AttentionSpec], AttentionBackend], budget: Budget) -> str:
    reasons: set[str] = set()
    num_tried = 0

    def attempt(problem: Problem) -> None:
        nonlocal num_tried
        reason = _unsupported(name, problem)
        if reason is None:
            num_tried += 1
            _try(f"{RULE} ({device})", build, problem)
        else:
            reasons.add(reason)

    result = search(problems(_target(name, device)), attempt, budget)
    if result.violation is not None:
        raise result.violation
    if not num_tried:
        raise NotApplicable("; ".join(sorted(reasons)[:2]))
    return f"{num_tried} random batches" + (
        f"; {result.num_examples - num_tried} of unsupported shapes" * bool(reasons)
    )


def _named(name: str, device: str, build: Callable[[AttentionSpec], AttentionBackend]) -> str:
    num_tried, reason = 0, None
    target = _target(name, device)
    for rows in _NAMED:
        for dtype in target.dtypes:
            problem = Problem(target, dtype, 6, 2, 64, 16, rows, num_padding=2, seed=len(rows))
            reason = _unsupported(name, problem)
            if reason is None:
                num_tried += 1
                _try(f"... and on batches at the edges ({device})", build, problem)
    if not num_tried:
        raise NotApplicable(reason or "no batch was supported")
    return f"{num_tried} batches"


def _try(rule: str, build: Callable[[AttentionSpec], AttentionBackend], problem: Problem) -> None:
    try:
        with time_limit(_LIMIT_S):
            check(build, problem)
    except (AssertionError, TimeLimitError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()][:8]
        raise Violation(rule, "\n".join([f"{type(error).__name__}: ", *lines, problem.describe()])) from error


def _unsupported(name: str, problem: Problem) -> str | None:
    from framework.registry import ATTENTIONS

    reason: str | None = ATTENTIONS.get(name).unsupported_reason(problem.spec)
    return reason


def _target(name: str, device: str) -> Target:
    if device == "cuda":
        return Target(name, device, dtypes=(torch.bfloat16, torch.float16), block_sizes=(16, 32, 64, 256))
    return Target(name, device)
