"""The checks of schedulers: on a shadow KV memory with a virtual clock, and then on a small model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from framework.conformance.kit import serve as rules
from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.model_run import same_tokens
from framework.conformance.kit.search import search
from framework.conformance.kit.secrets import BURST, SECRET, compare_lengths
from framework.conformance.kit.serve import serve
from framework.conformance.kit.starvation import EQUAL_CLIENTS, describe_starvation, equal_clients
from framework.conformance.kit.traces import Trace, simpler_traces, traces
from framework.conformance.kit.views import VIEW, guard
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS

OVERLAPS = (0, 1, 2)
RULES = (rules.ENDS, rules.RAISES, rules.CALLS, rules.BUDGETS, rules.TOKENS, rules.MEMORY)
_NUM_SECRETS = 20
_NUM_GUARDED = 15
SAME_PLANS = "the same trace gives the same plans"


def checks(choice: Mapping[Any, Any], build: Callable[[], Scheduler], budget: Budget) -> list[Check]:
    """The checks of the scheduler that `build` makes anew each time."""
    searched = _Traces(build, budget)
    return [
        *(Check(rule, lambda rule=rule: searched.run(rule)) for rule in RULES),  # type: ignore[misc]
        Check(SAME_PLANS, lambda: _same_plans(build, budget)),
        Check(SECRET, lambda: _keeps_secrets(build, budget, searched)),
        Check(VIEW, lambda: _within_view(build, budget, searched)),
        Check(EQUAL_CLIENTS, lambda: _equal_clients(build, searched)),
        Check("longest wait while others run", lambda: _longest_wait(build, searched)),
        Check("same tokens as chunked_prefill on a model", lambda: same_tokens("scheduler", choice)),
    ]


class _Traces:
    """One search serves all rules: a rule whose violation was found is left out of the next search."""

    def __init__(self, build: Callable[[], Scheduler], budget: Budget) -> None:
        self.build, self.budget = build, budget
        self.broken: dict[str, Violation] = {}
        self.num_traces = 0
        self.longest_wait_steps = 0
        self._overlaps: tuple[int, ...] = OVERLAPS
        self._done = False

    def run(self, rule: str) -> str:
        while not self._done:
            self._overlaps = OVERLAPS
            result = search(traces(), self._attempt, self.budget, simpler_traces)
            self.num_traces = max(self.num_traces, result.num_examples)
            if result.violation is None:
                self._done = True
            else:
                self.broken[result.violation.rule] = result.violation
                self._done = result.violation.rule == rules.ENDS  # each further trace might take for ever
        if rule in self.broken:
            raise self.broken[rule]
        others = ", as far as it got" if self.broken else ""
        return f"{self.num_traces} random traces x engine.overlap {', '.join(map(str, OVERLAPS))}{others}"

    def _attempt(self, trace: Trace) -> None:
        for overlap in self._overlaps:
            try:
                served = serve(trace, self.build(), EVICTIONS.get("lru")(), overlap=overlap)
            except Violation as violation:
                if violation.rule not in self.broken:
                    self._overlaps = (overlap,)  # make the case smaller at this depth alone
                    raise
            else:
                self.longest_wait_steps = max(self.longest_wait_steps, *served.waits_steps)


def _same_plans(build: Callable[[], Scheduler], budget: Budget) -> str:
    def attempt(example: tuple[Trace, int]) -> None:
        trace, overlap = example
        try:
            one, other = (serve(trace, build(), EVICTIONS.get("lru")(), overlap=overlap).steps for _ in range(2))
        except Violation:
            return  # another check reports it
        for number, (first, second) in enumerate(zip(one, other, strict=False)):
            if first != second:
                plans = f"step {number} ran {first} at first and {second} the second time (request: tokens)"
                raise Violation(SAME_PLANS, f"{plans}\n{trace.describe()}\nengine.overlap={overlap}")
        if len(one) != len(other):
            raise Violation(SAME_PLANS, f"{len(one)} steps, then {len(other)}\n{trace.describe()}")

    examples = st.tuples(traces(), st.sampled_from(OVERLAPS))
    result = search(
        examples, attempt, budget, lambda example: ((one, example[1]) for one in simpler_traces(example[0]))
    )
    if result.violation is not None:
        raise result.violation
    return f"{result.num_examples} random traces, each twice"


def _keeps_secrets(build: Callable[[], Scheduler], budget: Budget, searched: _Traces) -> str:
    if searched.broken:
        raise NotApplicable("not tried while a rule above does not hold")

    def attempt(example: tuple[Trace, int, int, int]) -> None:
        trace, place, longer, overlap = example
        secret = place % len(trace.requests)
        compare_lengths(trace, secret, longer, build(), build(), overlap=overlap)

    for place in range(0, len(BURST.requests), 3):
        attempt((BURST, place, 30, 0))
    places, longer = st.integers(0, 63), st.integers(1, 60)
    result = search(
        st.tuples(traces(), places, longer, st.sampled_from(OVERLAPS)),
        attempt,
        replace(budget, num_examples=min(budget.num_examples, _NUM_SECRETS)),
        lambda example: ((one, *example[1:]) for one in simpler_traces(example[0])),
    )
    if result.violation is not None:
        raise result.violation
    return f"a burst and {result.num_examples} random traces, each served with one length and with another"


def _within_view(build: Callable[[], Scheduler], budget: Budget, searched: _Traces) -> str:
    if searched.broken:
        raise NotApplicable("not tried while a rule above does not hold")

    def attempt(example: tuple[Trace, int]) -> None:
        trace, overlap = example
        serve(trace, guard(build(), Scheduler), EVICTIONS.get("lru")(), overlap=overlap)

    result = search(
        st.tuples(traces(), st.sampled_from(OVERLAPS)),
        attempt,
        replace(budget, num_examples=min(budget.num_examples, _NUM_GUARDED)),
        lambda example: ((one, example[1]) for one in simpler_traces(example[0])),
    )
    if result.violation is not None:
        raise result.violation
    return f"{result.num_examples} random traces, in which it gets its interface and nothing behind it"


def _equal_clients(build: Callable[[], Scheduler], searched: _Traces) -> str:
    if searched.broken:
        raise NotApplicable("not tried while a rule above does not hold")
    return equal_clients(build)


def _longest_wait(build: Callable[[], Scheduler], searched: _Traces) -> str:
    if searched.broken:
        raise NotApplicable("not measured while a rule above does not hold")
    return f"{searched.longest_wait_steps} steps in the random traces; {describe_starvation(build)}"
