"""Eighteen plugins, each with one bug that its author could make, and whether `framework check` notices.

Seventeen are noticed. The last one keeps every rule: no check knows what a policy was meant to do.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from omegaconf import OmegaConf

from framework.conformance import Budget
from framework.conformance.checks import cost_model, eviction, graph, router, sampler, scheduler
from framework.conformance.kit import serve, starvation, watched_router
from framework.conformance.run import run_checks
from framework.interfaces import (
    BatchShape,
    EvictionPolicy,
    GraphKey,
    Queue,
    Scheduler,
    StepPlan,
    Verdict,
)
from framework.interfaces.cost_model import CostModel, StepCost, StepShape
from framework.interfaces.eviction import CachedBlock
from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.interfaces.scheduler import RequestView
from framework.registry.discovery import discover
from framework.toolkit.schedulers.ranked import RankedScheduler
from framework.toolkit.schedulers.victim import continue_running
from plugins.graphs.pow2 import Pow2
from plugins.samplers.gumbel import Gumbel
from plugins.samplers.top_k_top_p import TopKTopP

discover()
BUDGET = Budget(num_examples=80, search_s=60.0, shrink_s=0.2, num_cost_blocks=20_000, num_draws=4000)
FEW = Budget(num_examples=10, num_cost_blocks=20_000)


class Fcfs(Scheduler):
    """A right scheduler: first come, first served, in the order that `chosen` gives."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        preempted = False
        for request in tuple(queue.running):
            while request.running and plan.add(request) is Verdict.NO_BLOCKS:
                plan.preempt(queue.running[-1])
                preempted = True
        for request in () if preempted else self.chosen(list(queue.waiting)):
            if plan.add(request) is not Verdict.OK:
                break

    def chosen(self, waiting: list[RequestView]) -> Sequence[RequestView]:
        return waiting


class ServesAWhenNobodyElseWaits(Fcfs):
    def chosen(self, waiting: list[RequestView]) -> Sequence[RequestView]:
        return [request for request in waiting if request.client != "a"] or waiting


class ServesItsFavouriteFirst(Fcfs):
    def chosen(self, waiting: list[RequestView]) -> Sequence[RequestView]:
        return sorted(waiting, key=lambda request: request.client != "c")


class ForgetsWhoIsPreempted(RankedScheduler):
    def rank(self, request: RequestView) -> int:
        return request.id

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        if not continue_running(queue, plan, self.choose_victim):
            self.admit(plan)


class NeverAdmitsPromptsOfSixteen(Fcfs):
    def chosen(self, waiting: list[RequestView]) -> Sequence[RequestView]:
        return [request for request in waiting if request.num_prompt % 16]


class ReadsTheClockOfTheWall(Fcfs):
    def chosen(self, waiting: list[RequestView]) -> Sequence[RequestView]:
        return waiting if time.perf_counter_ns() // 1000 % 2 else waiting[::-1]


class RemembersAcrossRuns(Fcfs):
    seen: ClassVar[set[int]] = set()

    def chosen(self, waiting: list[RequestView]) -> Sequence[RequestView]:
        fresh = [request for request in waiting if request.id not in self.seen]
        self.seen.update(request.id for request in fresh[:1])
        return fresh


class Stack(EvictionPolicy):
    """Right: the block that became evictable last goes first."""

    def __init__(self) -> None:
        self.blocks: dict[int, CachedBlock] = {}

    def add(self, block: CachedBlock) -> None:
        self.blocks[block.id] = block

    def remove(self, block: CachedBlock) -> None:
        del self.blocks[block.id]

    def evict(self) -> CachedBlock:
        return self.blocks.popitem()[1]


class RemovesTheLastInPlaceOfTheBlock(Stack):
    def remove(self, block: CachedBlock) -> None:
        self.blocks.popitem()


class TakesABlockOnce(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def add(self, block: CachedBlock) -> None:
        if block.id not in self.seen:
            super().add(block)
        self.seen.add(block.id)

    def remove(self, block: CachedBlock) -> None:
        self.blocks.pop(block.id, None)


class MissesTheLastBlock(Stack):
    def evict(self) -> CachedBlock:
        return self.blocks.pop(list(self.blocks)[-2])


class IgnoresTheSeed(Gumbel):
    def sample(self, logits_RV: Any, prepared: Any, seed_R: Any, position_R: Any, history: Any) -> Any:
        return super().sample(logits_RV, prepared, seed_R * 0, position_R, history)


class IgnoresThePosition(Gumbel):
    def sample(self, logits_RV: Any, prepared: Any, seed_R: Any, position_R: Any, history: Any) -> Any:
        return super().sample(logits_RV, prepared, seed_R, position_R * 0, history)


class LeavesOutTheTokenThatCrossesTopP(TopKTopP):
    def prepare(self, params: Any, out: Any = None) -> Any:
        return super().prepare([dataclasses.replace(one, top_p=max(0.01, one.top_p - 0.1)) for one in params], out)


class ReadsTheNeighbour(Gumbel):
    def sample(self, logits_RV: Any, prepared: Any, *more: Any) -> Any:
        return super().sample(torch.roll(logits_RV, 1, 0), prepared, *more)


class RoundsDown(Pow2):
    def select(self, shape: BatchShape) -> GraphKey | None:
        if shape.num_tokens != shape.num_rows:
            return None
        return next((GraphKey(size, size) for size in reversed(self._sizes) if size <= shape.num_rows), None)


class CountsFromOne(Router):
    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        return 1 + request.id % len(replicas)


class GrowsWithItsCalls(CostModel):
    num_calls = 0

    def cost(self, step: StepShape) -> StepCost:
        self.num_calls += 1
        return StepCost(1e-3 * step.num_tokens + 1e-6 * self.num_calls, 1e-4)


class PaysForThePaddingOnly(CostModel):
    def cost(self, step: StepShape) -> StepCost:
        return StepCost(1e-3 / step.num_rows, 1e-4)


class CallsItselfLru(Stack):
    """Evicts the block that was used last, which is a legitimate policy."""


BUGS: list[tuple[Any, type, str]] = [  # with the check that comes upon it first
    (scheduler, ServesAWhenNobodyElseWaits, starvation.EQUAL_CLIENTS),
    (scheduler, ServesItsFavouriteFirst, starvation.EQUAL_CLIENTS),
    (scheduler, ForgetsWhoIsPreempted, serve.ENDS),
    (scheduler, NeverAdmitsPromptsOfSixteen, serve.ENDS),
    (scheduler, ReadsTheClockOfTheWall, scheduler.SAME_PLANS),
    (scheduler, RemembersAcrossRuns, serve.ENDS),
    (eviction, RemovesTheLastInPlaceOfTheBlock, eviction.BALANCE),
    (eviction, TakesABlockOnce, eviction.BALANCE),
    (eviction, MissesTheLastBlock, eviction.BALANCE),
    (sampler, IgnoresTheSeed, sampler.DISTRIBUTION),
    (sampler, IgnoresThePosition, sampler.DISTRIBUTION),
    (sampler, LeavesOutTheTokenThatCrossesTopP, sampler.DISTRIBUTION),
    (sampler, ReadsTheNeighbour, sampler.MATES),
    (graph, RoundsDown, graph.SELECTS),
    (router, CountsFromOne, watched_router.RANGE),
    (cost_model, GrowsWithItsCalls, cost_model.SAME_COST),
    (cost_model, PaysForThePaddingOnly, cost_model.MORE),
]
SLOW = "on a model"


def broken_rules(kind: Any, build: Callable[..., Any], rule: str = "") -> dict[str, str]:
    checks = kind.checks(OmegaConf.create({"name": "mine"}), build, BUDGET if rule else FEW)
    found = run_checks(check for check in checks if SLOW not in check.rule and rule in ("", check.rule))
    return {finding.rule: finding.detail for finding in found if finding.status == "fails"}


def test_there_are_eighteen() -> None:
    assert len({bug for _, bug, _ in BUGS} | {CallsItselfLru}) == 18


@pytest.mark.parametrize(("kind", "bug", "rule"), BUGS, ids=[bug.__name__ for _, bug, _ in BUGS])
def test_a_seeded_bug_is_noticed(kind: Any, bug: type, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_LIMIT_S", 0.5)
    broken = broken_rules(kind, bug, rule)
    assert broken
    assert all(broken.values()), "each says what happened"


@pytest.mark.parametrize(("kind", "right"), [(scheduler, Fcfs), (eviction, Stack)])
def test_what_the_bugs_are_made_of_is_right(kind: Any, right: type) -> None:
    assert broken_rules(kind, right) == {}


def test_a_bug_that_is_not_noticed() -> None:
    assert broken_rules(eviction, CallsItselfLru) == {}
