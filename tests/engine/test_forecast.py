"""`Queue.forecast`: what the cost model says in a simulation, and what was learned from the steps elsewhere."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest

from framework.conformance.checks.cost_model import several_deployments
from framework.interfaces.cost_model import CostModel, StepCost, StepShape
from framework.interfaces.errors import PluginError
from framework.interfaces.graph import GraphLimits, GraphStrategy
from framework.interfaces.records import StepRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Queue, StepPlan
from framework.registry.discovery import discover
from framework.simulation.executor import SimulatedExecutor
from framework.toolkit.step_forecast import StepForecast
from framework.toolkit.step_shape import shape_of, step_shape
from plugins.cost_models.roofline import Roofline
from plugins.eviction.lru import LRU
from plugins.graphs.eager import Eager
from plugins.graphs.mixed import Mixed
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from tests.engine.shadow import ShadowExecutor, make_engine

discover()
DEPLOYMENTS = {f"{one.model_name} on {one.hardware.name}": one for one in several_deployments()}


def random_step(rng: random.Random) -> StepShape:
    """Decode rows, and in half of the steps a prompt chunk or two beside them."""
    contexts = [rng.randint(1, 4000) for _ in range(rng.randint(0, 256))]
    chunks = [(rng.randint(0, 4000), rng.randint(2, 2048)) for _ in range(rng.choice((0, 0, 1, 2)))]
    if not contexts and not chunks:
        contexts = [100]
    num_tokens, num_rows = len(contexts) + sum(num for _, num in chunks), len(contexts) + len(chunks)
    return StepShape(
        num_tokens=num_tokens,
        num_rows=num_rows,
        num_decode_rows=len(contexts),
        num_sampled=num_rows,
        decode_kv_tokens=sum(contexts) + len(contexts),
        prefill_kv_tokens=sum(start + num for start, num in chunks),
        prefill_pairs=sum(num * start + num * (num + 1) // 2 for start, num in chunks),
        scope=None,
        padded_tokens=num_tokens,
        padded_rows=num_rows,
        longest_chunk_kv=max((start + num for start, num in chunks), default=0),
    )


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_after_200_steps_the_median_error_is_below_5_percent(name: str) -> None:
    """Step times of a roofline, which bends between memory and arithmetic, with 3 % noise and some hiccups."""
    model, rng = Roofline(DEPLOYMENTS[name]), random.Random(5)

    def took_s(step: StepShape) -> float:
        cost = model.cost(step)
        hiccup = 20.0 if rng.random() < 0.01 else 1.0
        return max(cost.device_s, cost.host_s + cost.launch_s) * rng.lognormvariate(0, 0.03) * hiccup

    forecast, errors = StepForecast(), []
    for number in range(400):
        step = random_step(rng)
        expected, actual = forecast.seconds(step), took_s(step)
        if number >= 200:
            assert expected is not None
            errors.append(abs(expected - actual) / actual)
        forecast.learn(step, actual)
    assert median(errors) < 0.05


def test_it_costs_less_than_20_us_per_step() -> None:
    rng, forecast = random.Random(1), StepForecast()
    steps = [random_step(rng) for _ in range(500)]

    def mean_us(call: Callable[[StepShape], object]) -> float:
        started_s = time.process_time()
        for step in steps:
            call(step)
        return (time.process_time() - started_s) / len(steps) * 1e6

    least_us = min(mean_us(lambda step: (forecast.learn(step, 0.01), forecast.seconds(step))) for _ in range(5))
    assert least_us < 20


def test_it_follows_a_device_that_slows_down() -> None:
    rng, forecast = random.Random(2), StepForecast()
    model = Roofline(next(iter(DEPLOYMENTS.values())))
    steps = [random_step(rng) for _ in range(600)]
    for number, step in enumerate(steps):
        forecast.learn(step, model.cost(step).device_s * (1.5 if number > 300 else 1.0))
    late = [(forecast.seconds(step), model.cost(step).device_s * 1.5) for step in steps[500:]]
    assert median(abs((got or 0) - actual) / actual for got, actual in late) < 0.1


class Asks(ChunkedPrefill):
    """Notes what it is told of the step that it plans."""

    asks_forecast = True

    def __init__(self) -> None:
        super().__init__()
        self.expected: list[float | None] = []
        self.shapes: list[StepShape] = []

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        rows = [(one, min(one.num_pending, 40)) for one in queue.running if one.num_pending]
        if rows:
            self.shapes.append(shape_of(rows))
            self.expected.append(queue.forecast(self.shapes[-1]))
        super().schedule(queue, plan)


def test_on_a_device_it_is_learned_from_the_steps_that_ran() -> None:
    """The shadow executor takes 4 ms and 20 us per token."""
    scheduler = Asks()
    engine = make_engine(scheduler, LRU(), num_blocks=400)
    for number in range(6):
        params = SamplingParams(max_tokens=40 + number, ignore_eos=True)
        engine.add_request(RequestSpec(prompt_token_ids=[number] * 9, params=params))
    while engine.has_work:
        engine.step()
    assert scheduler.expected[0] is None, "nothing is known of the first step"
    assert scheduler.expected[-1] == pytest.approx(0.004 + 2e-5 * 1, rel=0.01)


class PerToken(CostModel):
    def __init__(self) -> None:
        self.graphs: set[object] = set()

    def cost(self, step: StepShape) -> StepCost:
        self.graphs.add((step.scope, step.padded_tokens))
        return StepCost(device_s=0.001 * step.padded_tokens + 1e-6 * step.decode_kv_tokens, host_s=0.0005)


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("strategy", [Eager, Mixed])
def test_in_a_simulation_it_is_what_the_step_then_takes(strategy: type[GraphStrategy], overlap: int) -> None:
    limits = GraphLimits(max_num_seqs=8, max_num_batched_tokens=64, mixed_supported=True)

    def executor(*_: object) -> SimulatedExecutor:
        return SimulatedExecutor(PerToken(), strategy(), limits, num_blocks=400, vocab_size=1000)

    scheduler, records = Asks(), []
    engine = make_engine(scheduler, LRU(), num_blocks=400, overlap=overlap, make_executor=executor)  # type: ignore[arg-type]

    class Notes:
        def on_step(self, record: StepRecord) -> None:
            records.append(record)

    engine.observers.append(Notes())
    for number in range(3):
        params = SamplingParams(max_tokens=20, ignore_eos=True)
        engine.add_request(RequestSpec(prompt_token_ids=[number] * 5, params=params))
    while engine.has_work:
        engine.step()
    took_s = [after.finish_s - before.finish_s for before, after in pairwise(records)]
    assert scheduler.expected[: len(took_s)] == [pytest.approx(one) for one in took_s]


def test_the_shape_of_rows_is_that_of_the_sealed_batch() -> None:
    shapes = []

    class Notes(ShadowExecutor):
        def submit(self, batch) -> None:  # type: ignore[no-untyped-def]
            shapes.append(step_shape(batch))
            super().submit(batch)

    scheduler = Asks()
    engine = make_engine(scheduler, LRU(), max_num_batched_tokens=40, make_executor=Notes)
    for number in range(3):
        engine.add_request(
            RequestSpec(prompt_token_ids=[number] * (30 + 9 * number), params=SamplingParams(max_tokens=9))
        )
    while engine.has_work:
        engine.step()
    assert [one for one in scheduler.shapes if one in shapes[1:]][-5:] == shapes[-5:]


def test_a_scheduler_that_did_not_say_so_is_refused() -> None:
    class Forgets(Asks):
        asks_forecast = False

    engine = make_engine(Forgets(), LRU())
    engine.add_request(RequestSpec(prompt_token_ids=[1], params=SamplingParams(max_tokens=9)))
    engine.step()
    with pytest.raises(PluginError, match="set `asks_forecast = True`"):
        engine.step()


def test_a_scheduler_hears_of_every_step_after_its_tokens() -> None:
    heard: list[object] = []

    class Hears(ChunkedPrefill):
        def on_tokens(self, request, num_new) -> None:  # type: ignore[no-untyped-def]
            heard.append(request.num_output)

        def on_step(self, record: StepRecord) -> None:
            heard.append((record.step, record.num_decode_tokens, record.finish_s > record.submit_s))

    engine = make_engine(Hears(), LRU())
    engine.add_request(RequestSpec(prompt_token_ids=[1, 2], params=SamplingParams(max_tokens=2, ignore_eos=True)))
    while engine.has_work:
        engine.step()
    assert heard == [1, (0, 0, True), 2, (1, 1, True)]
