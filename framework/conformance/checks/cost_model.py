"""The checks of cost models: their seconds for random steps of several deployments."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from math import inf
from typing import Any

from hypothesis import strategies as st

from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.conformance.kit import serve as rules
from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.conformance.kit.search import search
from framework.conformance.kit.step_shapes import KINDS, Batch, Kind, batches, kind_name, simpler_batches, with_more
from framework.interfaces.cost_model import CostModel, Deployment, StepCost
from framework.simulation.build import read_deployment

SECONDS = "every cost is a finite number of seconds, at least 0"
SAME_COST = "a cost is a function of the step alone"
MORE = "twice the work takes no less time"
SAYS = "what it says of itself are plain values"
QUICK = "what a call costs"

NOISE = 0.1
"""The share by which twice the work may take less time, because measured times scatter."""
_DEPLOYMENTS = (
    ("model=qwen3_0_6b",),
    ("model=qwen3_8b",),
    ("model=qwen3_32b", "executor.hardware=a100", "executor.tp=8"),
    ("model=llama3_8b", "executor.hardware=h100", "executor.kv_dtype=fp8"),
    ("model=tiny", "executor.hardware=cpu", "executor.dtype=float32"),
)
_NUM_CALLS = 20_000

Example = tuple[Batch, int]
"""A step, and the number of the deployment that runs it."""


def checks(
    choice: Mapping[Any, Any], build: Callable[[Deployment], CostModel], budget: Budget, asked: Deployment | None = None
) -> list[Check]:
    """The checks of the cost model that `build` makes anew each time: for `asked`, or for those of several deployments
    that it does not refuse.
    """
    deployments = (asked,) if asked is not None else several_deployments()
    known = [deployment for deployment in deployments if _accepts(build, deployment)]
    if not known:
        build(deployments[0])  # raises, and says for what it could be built
    subject = _Subject(build, known, budget)
    return [
        Check(SECONDS, subject.seconds),
        Check(SAME_COST, subject.same_cost),
        Check(MORE, subject.more),
        Check(SAYS, subject.says),
        Check(QUICK, subject.quick),
    ]


@cache
def several_deployments() -> tuple[Deployment, ...]:
    """Large and small models, one or several ranks, narrow KV caches. Those with shipped profiles are among them."""
    configurations = (compose(["executor=simulated", *overrides]) for overrides in _DEPLOYMENTS)
    return tuple(read_deployment(settings_of(cfg)) for cfg in configurations)


def _accepts(build: Callable[[Deployment], CostModel], deployment: Deployment) -> bool:
    try:
        build(deployment)
    except Exception as error:  # noqa: BLE001 (any other one is not a refusal: the first check reports it)
        return not isinstance(error, ValueError)
    return True


class _Subject:
    """A cost model, the deployments that it knows, and which graphs: a profile has those that were measured."""

    def __init__(
        self, build: Callable[[Deployment], CostModel], deployments: Sequence[Deployment], budget: Budget
    ) -> None:
        self.build, self.deployments, self.budget = build, deployments, budget
        self._raised = False
        self.names = ", ".join(f"{d.model_name} on {d.hardware.name}, tp={d.tp}" for d in deployments)

    @cached_property
    def known(self) -> list[tuple[int, Kind]]:
        """Deployments, by number, and kinds of graphs, but those of which even one decode row raises ValueError."""
        found = []
        for number in range(len(self.deployments)):
            model = self._model(number)
            for kind in KINDS:
                with suppress(ValueError):
                    model.cost(Batch(contexts=(1,), chunks=(), kind=kind).shape())
                    found.append((number, kind))
        if not found:
            raise Violation(SECONDS, f"cost() refuses a step of one decode row in any graph and in none; {self.names}")
        return found

    def seconds(self) -> str:
        costs: list[float] = []

        def attempt(example: Example) -> None:
            cost = self._cost(self._model(example[1]), example)
            if not isinstance(cost, tuple) or len(cost) != 3 or not all(0 <= value < inf for value in cost):
                raise Violation(SECONDS, f"{cost!r}, not a StepCost of such numbers\n{self._describe(example)}")
            costs.append(sum(cost))

        self._search(attempt)
        known = {kind for _, kind in self.known}
        kinds = ", ".join(kind_name(kind) for kind in KINDS if kind not in known)
        refused = f"; unknown: {kinds}" if kinds else ""
        low, high = (1e3 * edge(costs) for edge in (min, max))
        return f"{len(costs)} random steps, {low:.3g} to {high:.3g} ms; {self.names}{refused}"

    def same_cost(self) -> str:
        """An object that has seen other steps gives the same cost as one that has not."""
        used = [self.build(deployment) for deployment in self.deployments]

        def attempt(example: Example) -> None:
            models = used[example[1]], self._model(example[1]), used[example[1]]
            costs = [self._cost(model, example) for model in models]
            if len(set(costs)) > 1:
                times = ", then ".join(map(str, costs))
                raise Violation(SAME_COST, f"one step cost {times}\n{self._describe(example)}")

        return f"{self._search(attempt)} random steps, each asked of a new object and twice of one that sees all"

    def more(self) -> str:
        num_pairs = num_less = 0
        worst = 0.0

        def attempt(example: Example) -> None:
            nonlocal num_pairs, num_less, worst
            batch, number = example
            model = self._model(number)
            before_s = self._cost(model, example)[0]
            for what, larger in with_more(batch):
                after_s = self._cost(model, (larger, number))[0]
                num_pairs += 1
                less = 1 - after_s / before_s if before_s else 0.0
                num_less += less > 1e-9
                worst = max(worst, less)
                if less > NOISE:
                    times = f"device_s={before_s:.6g}, and with {what} {after_s:.6g}"
                    raise Violation(MORE, f"{times}\n{self._describe(example)}")

        self._search(attempt)
        scatter = f"; {num_less} took less, by {worst:.1%} at most ({NOISE:.0%} may be scatter)" if num_less else ""
        return f"device_s in {num_pairs} pairs of steps{scatter}"

    def says(self) -> str:
        keys: dict[str, None] = {}
        for deployment in self.deployments:
            said = self.build(deployment).effective()
            try:
                json.dumps(said, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise Violation(SAYS, f"effective() returned {said}: {error}") from error
            keys |= dict.fromkeys(said)
        return ", ".join(keys) or "nothing"

    def quick(self) -> str:
        """The cost is measured in CPU time of this process, since a whole trace takes one call per step."""
        model = self.build(self.deployments[0])
        step = Batch(contexts=(500,) * 32, chunks=(), kind=(None, False)).shape()
        started_s = time.process_time()
        for number in range(_NUM_CALLS):
            model.cost(step)
            if number % 64 == 63 and time.process_time() - started_s > 1.0:
                break
        return f"{(time.process_time() - started_s) * 1e6 / (number + 1):.1f} us for a step of 32 decode rows"

    def _model(self, number: int) -> CostModel:
        return self.build(self.deployments[number])

    def _describe(self, example: Example) -> str:
        deployment = self.deployments[example[1]]
        return f"{deployment.model_name} on {deployment.hardware.name}, tp={deployment.tp}; {example[0].describe()}"

    def _search(self, attempt: Callable[[Example], None]) -> int:
        known = self.known

        @st.composite
        def examples(draw: st.DrawFn) -> Example:
            number, kind = draw(st.sampled_from(known))
            return draw(batches(kind)), number

        result = search(
            examples(), attempt, self.budget, lambda example: ((one, example[1]) for one in simpler_batches(example[0]))
        )
        if result.violation is not None:
            if result.violation.rule == rules.RAISES and self._raised:
                raise NotApplicable("not tried while cost() raises")
            self._raised = result.violation.rule == rules.RAISES
            raise result.violation
        return result.num_examples

    def _cost(self, model: CostModel, example: Example) -> StepCost:
        try:
            return model.cost(example[0].shape())
        except Exception as error:
            text = f"cost() raised {type(error).__name__}: {error}"
            raise Violation(rules.RAISES, f"{text}\n{self._describe(example)}") from error
