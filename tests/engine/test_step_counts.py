"""What step records count adds up to what happened, also where a plan only preempted and no step came of it."""

from __future__ import annotations

import pytest

from framework.interfaces.records import StepRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.scheduler import Queue, Scheduler, StepPlan
from plugins.eviction.lru import LRU
from tests.engine.shadow import make_engine, params


class PreemptsBetweenSteps(Scheduler):
    """After every fourth plan, all running requests lose what they have, in a plan without rows."""

    def __init__(self) -> None:
        self.num_plans = 0

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        self.num_plans += 1
        if self.num_plans % 4 == 0:
            for request in tuple(queue.running):
                plan.preempt(request)
            return
        for request in (*queue.running, *queue.waiting):
            plan.add(request)


class Steps:
    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def on_step(self, record: StepRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("overlap", [0, 1])
def test_events_of_plans_without_a_step_are_counted(overlap: int) -> None:
    engine = make_engine(PreemptsBetweenSteps(), LRU(), overlap=overlap, num_blocks=16, block_size=4)
    engine.observers.append(steps := Steps())
    for start in range(3):
        engine.add_request(
            RequestSpec(prompt_token_ids=range(start * 100, start * 100 + 9), params=params(8, ignore_eos=True))
        )
    records = []
    while engine.has_work:
        records += [output.record for output in engine.step() if output.record is not None]
    preemptions = sum(record.num_preemptions for record in records)
    assert preemptions > 0
    assert sum(step.preemptions for step in steps.records) == preemptions
    counters = engine.cache.counters
    assert sum(step.evictions for step in steps.records) == counters.evictions
    assert sum(step.cache_hit_blocks for step in steps.records) == counters.hit_blocks
    assert sum(step.cache_lookup_blocks for step in steps.records) == counters.lookup_blocks
