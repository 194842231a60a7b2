"""A plugin that catches what its view raises is found all the same, and predictors have a view too."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from framework.conformance.checks import predictor, scheduler
from framework.conformance.kit.finding import Violation
from framework.conformance.kit.predictions import Asked
from framework.conformance.kit.views import guard
from framework.engine.plan import RequestQueue
from framework.interfaces.predictor import LengthDistribution
from framework.interfaces.scheduler import Scheduler
from plugins.predictors.histogram import Histogram
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from tests.conformance.test_views import finding


def test_a_scheduler_that_catches_what_it_is_refused() -> None:
    class Cheat(ChunkedPrefill):
        def schedule(self, queue: Any, plan: Any) -> None:
            with contextlib.suppress(Exception):
                plan._cache  # noqa: B018
            super().schedule(queue, plan)

    found = finding(scheduler, Cheat, "mine")
    assert (found.status, "Cheat reads '_cache' of a StepPlan" in found.detail) == ("fails", True)


def test_the_first_violation_stays_whatever_the_plugin_makes_of_it() -> None:
    class Cheat(ChunkedPrefill):
        def schedule(self, queue: Any, plan: Any) -> None:
            try:
                queue.waiting.clear()
            except Exception as error:
                raise ValueError("mine") from error

    with pytest.raises(Violation, match="uses 'clear' of a queue"):
        guard(Cheat(), Scheduler).schedule(RequestQueue(), None)


@pytest.mark.parametrize("catches", [False, True])
def test_a_predictor_that_reaches_past_its_view(catches: bool) -> None:
    class Cheat(Histogram):
        def predict(self, request: Any) -> LengthDistribution:
            with contextlib.suppress(*[Exception] * catches):
                request.memory  # noqa: B018
            return super().predict(request)

    found = finding(predictor, Cheat, "mine")
    assert (found.status, "Cheat reads 'memory' of a RequestView" in found.detail) == ("fails", True)
    assert finding(predictor, Histogram, "histogram").status == "holds"


@pytest.mark.parametrize("number", [np.int64, np.float32, np.float64])
def test_lengths_may_be_numbers_of_numpy(number: Any) -> None:
    predictor._numbers(Asked(0, 3, number(7), (number(7),) * len(predictor.SHARES)))


@pytest.mark.parametrize(
    ("mean", "wrong"),
    [
        ("7", "mean is '7': a str, not a number"),
        (float("nan"), "mean is nan: not finite"),
        (float("inf"), "mean is inf: not finite"),
        (3.0, "mean is 3.0: not above the 3 tokens"),
    ],
)
def test_what_is_wrong_with_a_length_is_said(mean: Any, wrong: str) -> None:
    with pytest.raises(Violation, match=wrong):
        predictor._numbers(Asked(0, 3, mean, (7.0,) * len(predictor.SHARES)))
