"""The checks find what is wrong with a cost model or a router, name the rule, and show a small case."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from omegaconf import OmegaConf

from framework.conformance import Budget, Finding, check_plugins
from framework.conformance.checks import cost_model as cost_model_checks
from framework.conformance.checks import router as router_checks
from framework.conformance.kit import serve, serve_fleet
from framework.conformance.kit.step_shapes import Batch
from framework.conformance.kit.watched_router import RANGE, READS
from framework.conformance.run import run_checks
from framework.interfaces.cost_model import CostModel, Deployment, StepCost, StepShape
from framework.interfaces.graph import GraphScope
from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.registry.discovery import discover

discover()
BUDGET = Budget(num_examples=40, search_s=3.0, shrink_s=1.5)


def findings(kind: Any, plugin: Any, without: str = "") -> dict[str, Finding]:
    """The findings by rule. Each rule has one finding."""
    checks = kind.checks(OmegaConf.create({"name": "mine"}), plugin, BUDGET)
    found = run_checks(check for check in checks if check.rule != without)
    by_rule = {finding.rule: finding for finding in found}
    assert len(by_rule) == len(found), [finding.rule for finding in found]
    return by_rule


class Costs(CostModel):
    """Right."""

    def cost(self, step: StepShape) -> StepCost:
        return StepCost(1e-3 + 1e-6 * step.padded_tokens + 1e-9 * (step.decode_kv_tokens + step.prefill_pairs), 1e-4)


class Earns(Costs):
    def cost(self, step: StepShape) -> StepCost:
        return StepCost(super().cost(step).device_s, 1e-4 - 1e-5 * step.num_rows)


class NotANumber(Costs):
    def cost(self, step: StepShape) -> StepCost:
        return StepCost(float("nan") if step.num_rows > 3 else 1e-3, 0.0)


class ReturnsNothing(Costs):
    def cost(self, step: StepShape) -> StepCost:
        return None  # type: ignore[return-value]


class Noisy(Costs):
    def cost(self, step: StepShape) -> StepCost:
        return StepCost(super().cost(step).device_s * random.uniform(0.99, 1.01), 0.0)


class Remembers(Costs):
    """Pays for what it has not seen the step before."""

    last: StepShape | None = None

    def cost(self, step: StepShape) -> StepCost:
        again, self.last = step == self.last, step
        return StepCost(1e-3 if again else 2e-3, 0.0)


class CheaperContext(Costs):
    def cost(self, step: StepShape) -> StepCost:
        return StepCost(1.0 / (1 + step.decode_kv_tokens), 0.0)


class RefusesLargeSteps(Costs):
    def cost(self, step: StepShape) -> StepCost:
        if step.num_tokens > 100:
            raise ValueError("too large to know")
        return super().cost(step)


class SaysAnObject(Costs):
    def effective(self) -> dict[str, object]:
        return {"itself": self}


@pytest.mark.parametrize(
    ("model", "rule", "says"),
    [
        (Earns, cost_model_checks.SECONDS, "host_s=-"),
        (NotANumber, cost_model_checks.SECONDS, r"device_s=nan(.*\n)+.*\(num_tokens=4, num_rows=4, "),
        (ReturnsNothing, cost_model_checks.SECONDS, "None, not a StepCost"),
        (Noisy, cost_model_checks.SAME_COST, "one step cost .*, then "),
        (Remembers, cost_model_checks.SAME_COST, "one step cost .*, then "),
        (CheaperContext, cost_model_checks.MORE, "twice the positions"),
        (RefusesLargeSteps, serve.RAISES, "cost\\(\\) raised ValueError: too large to know\n"),
        (SaysAnObject, cost_model_checks.SAYS, "SaysAnObject object"),
    ],
)
def test_a_wrong_cost_model(model: type[CostModel], rule: str, says: str) -> None:
    finding = findings(cost_model_checks, model)[rule]
    assert finding.status == "fails"
    assert re.search(says, finding.detail), finding.detail


def test_a_right_cost_model_and_one_for_a_single_scope_of_graphs() -> None:
    class EagerOnly(Costs):
        def cost(self, step: StepShape) -> StepCost:
            if step.scope is not None:
                raise ValueError("no graph was measured")
            return super().cost(step)

    for model in (Costs, EagerOnly):
        found = findings(cost_model_checks, model)
        assert {finding.status for finding in found.values()} == {"holds"}, found
    unknown = "unknown: forward graph, forward graph of any rows, step graph, step graph of any rows, pieces graph"
    assert found[cost_model_checks.SECONDS].detail.endswith(unknown)


def test_a_cost_model_is_checked_for_what_it_can_be_built_for() -> None:
    class OneDeployment(Costs):
        def __init__(self, deployment: Deployment) -> None:
            if deployment.tp != 8:
                raise ValueError("only tp=8 was measured")
            super().__init__(deployment)

    found = findings(cost_model_checks, OneDeployment)
    assert found[cost_model_checks.SECONDS].detail.endswith("; qwen3_32b on a100, tp=8")
    simulated = ["executor=simulated", "model=llama2_7b", "executor.hardware=l40s"]
    with pytest.raises(ValueError, match="llama2_7b"):  # its profile was not measured, as a run would say
        check_plugins(["cost_model=profiled", *simulated], BUDGET)
    (asked,) = check_plugins(["cost_model=constant", *simulated], BUDGET).values()
    assert asked[0].detail.endswith("; llama2_7b on l40s, tp=1")


def test_the_steps_are_those_of_a_batch() -> None:
    batch = Batch(contexts=(3, 10), chunks=((0, 4), (8, 2)), kind=(GraphScope.PIECES, False), pad_to=8)
    shape = batch.shape()
    assert (shape.num_tokens, shape.num_rows, shape.num_decode_rows, shape.num_sampled) == (8, 4, 2, 3)
    assert shape.decode_kv_tokens == 4 + 11
    assert shape.prefill_kv_tokens == 4 + 10
    assert shape.prefill_pairs == (1 + 2 + 3 + 4) + (9 + 10)
    assert (shape.padded_tokens, shape.padded_rows) == (8, 4)
    step = Batch(contexts=(1,) * 9, chunks=(), kind=(GraphScope.STEP, False), pad_to=8).shape()
    assert (step.padded_tokens, step.padded_rows, step.num_sampled, step.mixed_graph) == (16, 16, 9, False)
    mixed = batch._replace(kind=(GraphScope.STEP, True)).shape()
    assert (mixed.padded_tokens, mixed.padded_rows, mixed.mixed_graph) == (9, 8, True)


class LeastLoaded(Router):
    """Right."""

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        return min(replicas, key=lambda replica: replica.num_requests).index


class OneTooFar(LeastLoaded):
    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        return (request.id % len(replicas)) + 1


class FixedFleet(LeastLoaded):
    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        return request.id % 4


class Unseeded(LeastLoaded):
    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        return random.randrange(len(replicas))


class SharesItsTurn(LeastLoaded):
    """Two runs of one process have a turn in common."""

    turn = itertools.count()

    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        return next(self.turn) % len(replicas)


class ForgetsTheLast(LeastLoaded):
    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        return request.id % (len(replicas) - 1)


class EatsThePath(LeastLoaded):
    def route(self, request: Arrival, path: Any, replicas: Sequence[ReplicaView]) -> int:
        while path:
            path.pop()
        return 0


class CountsForItself(LeastLoaded):
    def route(self, request: Arrival, path: Sequence[int], replicas: Any) -> int:
        replicas[0].num_requests += 1
        return 0


class NeverAnswers(LeastLoaded):
    def route(self, request: Arrival, path: Sequence[int], replicas: Sequence[ReplicaView]) -> int:
        while True:
            pass


@pytest.mark.parametrize(
    ("router", "rule", "says"),
    [
        (OneTooFar, RANGE, r"OneTooFar sent request \d+ to [23456]; there are 0 to"),
        (FixedFleet, RANGE, r"FixedFleet sent request (\d) to \1; there are 0 to \d"),
        (Unseeded, router_checks.SAME_CHOICES, r"request \d+ went to replica \d at first"),
        (SharesItsTurn, router_checks.SAME_CHOICES, r"request 0 went to replica \d at first"),
        (ForgetsTheLast, router_checks.REACHES, "replica 3 got none of 200 unrelated requests"),
        (EatsThePath, READS, r"EatsThePath changed the path of request 0 from \[.+\] to \[\]"),
        (CountsForItself, serve.RAISES, "cannot assign to field 'num_requests'"),
        (NeverAnswers, serve.ENDS, "did not return within"),
    ],
)
def test_a_wrong_router(router: type[Router], rule: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_fleet, "_LIMIT_S", 0.3)
    found = findings(router_checks, router, without=router_checks.COST)  # which would wait for an answer
    assert found[rule].status == "fails"
    assert re.search(says, found[rule].detail), found[rule].detail
    if rule in (RANGE, READS):
        assert "replicas, each with a\nKV cache of" in found[rule].detail


def test_a_right_router() -> None:
    assert {finding.status for finding in findings(router_checks, LeastLoaded).values()} == {"holds"}
