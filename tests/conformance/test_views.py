"""`check` finds a plugin that reaches behind its interface, although the engine would let it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import OmegaConf

from framework.conformance.checks import eviction, scheduler
from framework.conformance.kit.finding import Budget
from framework.conformance.kit.views import VIEW, guard
from framework.conformance.run import run_checks
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.scheduler import Scheduler
from plugins.eviction.lru import LRU
from plugins.schedulers.chunked_prefill import ChunkedPrefill

BUDGET = Budget(num_examples=12, search_s=30.0, shrink_s=0.0)


def finding(module: Any, build: Callable[[], Any], name: str) -> Any:
    one = next(check for check in module.checks(OmegaConf.create({"name": name}), build, BUDGET) if check.rule == VIEW)
    return run_checks([one])[0]


def reads_the_blocks(queue: Any, plan: Any) -> None:
    [request.memory for request in queue.waiting]


def reads_the_cache(queue: Any, plan: Any) -> None:
    plan._cache  # noqa: B018


def reads_the_predictor(queue: Any, plan: Any) -> None:
    [request.prediction for request in reversed(queue.running)]


def jumps_the_queue(queue: Any, plan: Any) -> None:
    for request in queue.waiting[:1]:
        request.arrival_s = 0.0


def takes_out_of_the_queue(queue: Any, plan: Any) -> None:
    if queue.waiting:
        queue.waiting.remove(queue.waiting[0])


CHEATS = {
    reads_the_blocks: "reads 'memory' of a RequestView, which has only arrival_s,",
    reads_the_cache: "reads '_cache' of a StepPlan",
    reads_the_predictor: "reads 'prediction' of a RequestView",
    jumps_the_queue: "sets 'arrival_s' of a RequestView",
    takes_out_of_the_queue: "uses 'remove' of a queue",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_scheduler_that_reaches_past_its_view(cheat: Callable[[Any, Any], None]) -> None:
    class Cheat(ChunkedPrefill):
        def schedule(self, queue: Any, plan: Any) -> None:
            cheat(queue, plan)
            super().schedule(queue, plan)

    found = finding(scheduler, Cheat, "mine")
    assert found.status == "fails"
    assert f"Cheat {CHEATS[cheat]}" in found.detail


def test_hooks_are_guarded_too() -> None:
    class Cheat(ChunkedPrefill):
        def on_finish(self, request: Any) -> None:
            request.token_ids  # noqa: B018

    assert "reads 'token_ids'" in finding(scheduler, Cheat, "mine").detail


def test_an_eviction_policy_that_reaches_past_its_view() -> None:
    class Cheat(LRU):
        def add(self, block: Any) -> None:
            block.children  # noqa: B018
            super().add(block)

    found = finding(eviction, Cheat, "mine")
    assert found.status == "fails"
    assert "Cheat reads 'children' of a CachedBlock" in found.detail


@pytest.mark.parametrize(("plugin", "interface"), [(ChunkedPrefill(), Scheduler), (LRU(), EvictionPolicy)])
def test_a_guarded_plugin_is_the_plugin_itself(plugin: Any, interface: type) -> None:
    assert guard(plugin, interface) is plugin
