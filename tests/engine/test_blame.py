"""A plugin that raises or breaks a rule is named by the error that ends the run."""

from __future__ import annotations

import pytest

from framework.interfaces import EvictionPolicy, Queue, Scheduler, StepPlan
from framework.interfaces.errors import PluginError
from framework.interfaces.request import RequestSpec
from framework.registry import EVICTIONS, SCHEDULERS
from tests.engine.shadow import make_engine, params
from tests.engine.traces import discover
from tests.eviction.stubborn import Stubborn

discover()


class Raising(Scheduler):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        raise KeyError("lost")


class Idle(Scheduler):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        pass


class PreemptsWaiting(Scheduler):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        plan.preempt(queue.waiting[0])


def run(scheduler: Scheduler, eviction: EvictionPolicy) -> None:
    engine = make_engine(scheduler, eviction, num_blocks=8, block_size=4)
    for start in range(6):
        engine.add_request(RequestSpec(prompt_token_ids=range(start * 100, start * 100 + 20), params=params(8)))
    while engine.has_work:
        engine.step()


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (Raising(), r"scheduler Raising \(.*test_blame\.py:\d+\): KeyError: 'lost'"),
        (Idle(), r"scheduler Idle planned nothing .* 0 requests running, 6 waiting, 8 of 8 blocks"),
        (PreemptsWaiting(), r"scheduler PreemptsWaiting .*plan\.preempt\(request 0\): it is not running"),
    ],
)
def test_schedulers(scheduler: Scheduler, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        run(scheduler, EVICTIONS.get("lru")())


def test_eviction_policy() -> None:
    with pytest.raises(PluginError, match=r"^eviction policy Stubborn returned Block"):
        run(SCHEDULERS.get("chunked_prefill")(), Stubborn())
