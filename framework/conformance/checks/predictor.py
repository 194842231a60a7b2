"""The checks of predictors: what they expect of random requests, and whether they know what nobody can know."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from numbers import Real
from typing import Any

from hypothesis import strategies as st

from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.predictions import Asked, predictions, timed
from framework.conformance.kit.search import search
from framework.conformance.kit.traces import Trace, simpler_traces, traces
from framework.conformance.kit.views import VIEW, guard
from framework.interfaces.errors import PluginError
from framework.interfaces.predictor import Predictor

NUMBERS = "means and quantiles are finite numbers of tokens, above what has been produced"
ORDERED = "a larger share gives no smaller quantile"
SAME = "the same requests get the same predictions"
SECRET = "true output lengths are unknown until they are reached"
COST = "what a prediction costs"

SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_NUM_ASKED = 2000
_NUM_GUARDED = 15


def checks(choice: Mapping[Any, Any], build: Callable[[], Predictor], budget: Budget) -> list[Check]:
    """The checks of the predictor that `build` makes anew each time."""
    return [
        Check(NUMBERS, lambda: _each(build, budget, _numbers)),
        Check(ORDERED, lambda: _each(build, budget, _ordered)),
        Check(SAME, lambda: _same(build, budget)),
        Check(VIEW, lambda: _within_view(build, budget)),
        Check(SECRET, lambda: _keeps_secrets(build, budget)),
        Check(COST, lambda: _cost(build)),
    ]


def _each(build: Callable[[], Predictor], budget: Budget, look: Callable[[Asked], None]) -> str:
    """`look` at each prediction, at arrivals and after each token."""

    def attempt(trace: Trace) -> None:
        for asked in predictions(trace, build(), SHARES):
            if asked.ended:
                continue
            try:
                look(asked)
            except Violation as violation:
                raise Violation(violation.rule, f"{violation.message}\n{trace.describe()}") from violation

    return f"{_search(attempt, budget)} random traces, asked at every arrival and after every token"


def _numbers(asked: Asked) -> None:
    quantiles = zip(SHARES, asked.quantiles, strict=True)
    for name, value in (("mean", asked.mean), *((f"quantile({share})", value) for share, value in quantiles)):
        wrong = _wrong(value, asked.num_output)
        if wrong:
            raise Violation(
                NUMBERS, f"of request {asked.request_id}, with {asked.num_output} tokens, {name} is {value!r}: {wrong}"
            )


def _wrong(value: Any, num_output: int) -> str:
    """What keeps `value` from being a length, numbers of numpy included; "" if nothing does."""
    if not isinstance(value, Real):
        return f"a {type(value).__name__}, not a number"
    number = float(value)
    if not -inf < number < inf:
        return "not finite"
    return "" if number > num_output else f"not above the {num_output} tokens that have been produced"


def _ordered(asked: Asked) -> None:
    if list(asked.quantiles) != sorted(asked.quantiles):
        values = ", ".join(f"{share}: {value:g}" for share, value in zip(SHARES, asked.quantiles, strict=True))
        raise Violation(ORDERED, f"of request {asked.request_id}, with {asked.num_output} tokens: {values}")


def _same(build: Callable[[], Predictor], budget: Budget) -> str:
    def attempt(trace: Trace) -> None:
        first, second = (predictions(trace, build(), SHARES) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            if one != other:
                raise Violation(SAME, f"{one} at first, and {other} the second time\n{trace.describe()}")

    return f"{_search(attempt, budget)} random traces, each twice"


def _within_view(build: Callable[[], Predictor], budget: Budget) -> str:
    def attempt(trace: Trace) -> None:
        try:
            predictions(trace, guard(build(), Predictor), SHARES)
        except PluginError as error:
            if isinstance(error.__cause__, Violation):
                raise error.__cause__ from error
            raise

    num_examples = _search(attempt, replace(budget, num_examples=min(budget.num_examples, _NUM_GUARDED)))
    return f"{num_examples} random traces, in which it gets its interface and nothing behind it"


def _keeps_secrets(build: Callable[[], Predictor], budget: Budget) -> str:
    """A request that is longer changes nothing before its shorter self would have ended."""
    if build().oracle:
        raise NotApplicable("it asks for them openly (oracle), and the record says so")

    def attempt(example: tuple[Trace, int]) -> None:
        trace, place = example
        secret = place % len(trace.requests)
        first = predictions(trace, build(), SHARES)
        second = predictions(trace, build(), SHARES, longer={secret: 20})
        ends = next((i for i, one in enumerate(first) if one.ended and one.request_id == secret), len(first))
        for one, other in zip(first[:ends], second, strict=False):
            if one != other:
                raise Violation(
                    SECRET,
                    f"{one}, and {other} where request {secret} is 20 tokens longer; to know lengths, set "
                    f"`oracle = True` and take them from `on_true_length`\n{trace.describe()}",
                )

    examples = st.tuples(traces(), st.integers(0, 63))
    result = search(
        examples, attempt, budget, lambda example: ((one, example[1]) for one in simpler_traces(example[0]))
    )
    if result.violation is not None:
        raise result.violation
    return f"{result.num_examples} random traces, each with one length and with another"


def _search(attempt: Callable[[Trace], None], budget: Budget) -> int:
    result = search(traces(), attempt, budget, simpler_traces)
    if result.violation is not None:
        raise result.violation
    return result.num_examples


def _cost(build: Callable[[], Predictor]) -> str:
    """In time of this process, over requests that arrive, are asked about and end."""
    arrival_s, update_s = timed(build(), _NUM_ASKED, time.process_time)
    return f"{arrival_s * 1e6:.0f} us per arrival and end, {update_s * 1e6:.1f} us per question after a token"
