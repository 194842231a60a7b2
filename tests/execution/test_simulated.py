"""The simulated executor: when steps end, what hides behind what, which graph a step replays."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from framework.engine.blame import blaming
from framework.interfaces.cost_model import CostModel, StepCost, StepShape
from framework.interfaces.errors import PluginError
from framework.interfaces.executor import Admission, StepBatch
from framework.interfaces.graph import GraphLimits
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import GRAPHS
from framework.simulation.executor import SimulatedExecutor
from framework.simulation.shadow_memory import ShadowMemory
from tests.engine.test_prompt_keys import DEPLOYMENT

LIMITS = GraphLimits(max_num_seqs=16, max_num_batched_tokens=64, mixed_supported=True)


class Fixed(CostModel):
    """The same cost for every step; keeps the shapes it was asked for."""

    def __init__(self, cost: StepCost) -> None:
        super().__init__(DEPLOYMENT)
        self.fixed, self.asked = cost, list[StepShape]()

    def cost(self, step: StepShape) -> StepCost:
        self.asked.append(step)
        return self.fixed


def decode(step: int, rows: int, start: int = 10) -> StepBatch:
    return StepBatch(
        step=step, num_tokens=rows, num_decode_rows=rows, row_tokens=[1] * rows, slots=list(range(rows)),
        starts=[start] * rows, samples=[True] * rows,
    )  # fmt: skip


def executor(cost: StepCost, graph: str = "eager") -> tuple[SimulatedExecutor, Fixed]:
    model = Fixed(cost)
    return SimulatedExecutor(model, GRAPHS.build({"name": graph}), LIMITS, num_blocks=64, vocab_size=100), model


def test_host_time_hides_behind_the_device_with_one_step_in_flight() -> None:
    simulated, _ = executor(StepCost(device_s=1.0, host_s=0.25))
    simulated.submit(decode(0, 1))  # starts at 0.25, ends at 1.25
    simulated.submit(decode(1, 1))  # planned until 0.5, waits for the device: ends at 2.25
    ends = []
    for step in range(2, 6):
        simulated.collect()
        ends.append(simulated.clock.now_s())
        simulated.submit(decode(step, 1))
    assert ends == [1.25, 2.25, 3.25, 4.25]


def test_without_overlap_host_and_device_take_turns() -> None:
    simulated, _ = executor(StepCost(device_s=1.0, host_s=0.25))
    for step in range(4):
        simulated.submit(decode(step, 1))
        assert simulated.collect().run_s == 1.0
    assert simulated.clock.now_s() == 5.0


def test_a_host_that_launches_longer_than_the_device_works_sets_the_pace() -> None:
    simulated, _ = executor(StepCost(device_s=0.5, host_s=0.0, launch_s=2.0))
    simulated.submit(decode(0, 1))
    simulated.submit(decode(1, 1))
    assert simulated.clock.now_s() == 4.0  # both launched; the first has long ended
    assert simulated.collect().run_s == 2.0
    assert simulated.clock.now_s() == 4.0


def test_an_idle_device_starts_at_once_after_a_restart() -> None:
    simulated, _ = executor(StepCost(device_s=1.0, host_s=0.0))
    simulated.submit(decode(0, 1))
    simulated.collect()
    simulated.clock.restart()
    simulated.submit(decode(1, 1))
    simulated.collect()
    assert simulated.clock.now_s() == 1.0


def test_graphs_pad_decode_steps_and_leave_chunks_eager() -> None:
    simulated, model = executor(StepCost(device_s=1.0, host_s=0.0), "pow2")
    simulated.submit(decode(0, 5))
    chunk = StepBatch(
        step=1, num_tokens=7, num_decode_rows=1, row_tokens=[1, 6], slots=[0, 1], starts=[20, 4], samples=[True, False]
    )
    simulated.submit(chunk)
    results = [simulated.collect(), simulated.collect()]
    assert [(r.graph_key, r.num_padding_tokens) for r in results] == [("step:8", 3), ("eager", 0)]
    padded, mixed = model.asked
    assert (padded.padded_rows, padded.num_rows, padded.decode_kv_tokens) == (8, 5, 55)
    assert (mixed.decode_kv_tokens, mixed.prefill_kv_tokens, mixed.num_sampled) == (21, 10, 1)
    assert mixed.prefill_pairs == 5 + 6 + 7 + 8 + 9 + 10  # each of six positions sees those up to itself


def test_a_graph_may_hold_chunks_too() -> None:
    simulated, model = executor(StepCost(device_s=1.0, host_s=0.0), "mixed")
    chunk = StepBatch(
        step=0,
        num_tokens=17,
        num_decode_rows=1,
        row_tokens=[1, 16],
        slots=[0, 1],
        starts=[20, 4],
        samples=[True, False],
    )
    unsampled = StepBatch(
        step=1, num_tokens=1, num_decode_rows=1, row_tokens=[1], slots=[0], starts=[20], samples=[False]
    )
    for batch in (chunk, decode(2, 3), unsampled, replace(chunk, eager=True)):
        simulated.submit(batch)
    results = [simulated.collect() for _ in range(4)]
    assert [(r.graph_key, r.num_padding_tokens) for r in results] == [
        ("step:32x16", 15), ("step:4", 1), ("eager", 0), ("eager", 0),
    ]  # fmt: skip
    mixed = model.asked[0]
    assert (mixed.padded_tokens, mixed.padded_rows, mixed.longest_chunk_kv) == (32, 16, 20)
    assert [shape.mixed_graph for shape in model.asked] == [True, False, False, False]


def test_a_graph_that_made_room_is_captured_again() -> None:
    model = Fixed(StepCost(1.0, 0.0))
    strategy = GRAPHS.build({"name": "exact", "max_graphs": 1})
    simulated = SimulatedExecutor(model, strategy, LIMITS, num_blocks=64, vocab_size=100)
    for step, rows in enumerate((3, 3, 4, 3)):
        simulated.submit(decode(step, rows))
        simulated.collect()
    assert [shape.captures for shape in model.asked] == [True, False, True, True]


@pytest.mark.parametrize("cost", [StepCost(float("nan"), 0.0), StepCost(1.0, -0.5), StepCost(1.0, 0.0, float("inf"))])
def test_a_cost_that_is_no_time_is_refused_by_name(cost: StepCost) -> None:
    simulated, _ = executor(cost)
    with pytest.raises(PluginError, match=r"cost model Fixed: step 7 costs device_s=.* finite number of seconds, at"):
        simulated.submit(decode(7, 1))


def test_a_cost_model_that_raises_is_named() -> None:
    class Lost(CostModel):
        def cost(self, step: StepShape) -> StepCost:
            raise KeyError("lost")

    simulated = SimulatedExecutor(
        Lost(DEPLOYMENT), GRAPHS.build({"name": "eager"}), LIMITS, num_blocks=64, vocab_size=100
    )
    with pytest.raises(PluginError, match=r"cost model Lost .*KeyError: 'lost'"), blaming():
        simulated.submit(decode(0, 1))


def test_verify_notices_a_block_that_holds_something_else() -> None:
    simulated = SimulatedExecutor(
        Fixed(StepCost(1.0, 0.0)), GRAPHS.build({"name": "eager"}), LIMITS, num_blocks=64, vocab_size=100,
        memory=ShadowMemory(64, 4, 16),
    )  # fmt: skip
    first = StepBatch(
        step=0, num_tokens=8, num_decode_rows=0, row_tokens=[8], slots=[0], starts=[0], samples=[True],
        admissions=[Admission(0, 0, array("i", range(8)), 8, SamplingParams(), 0)], new_blocks=[(0, 0, [5, 6])],
    )  # fmt: skip
    simulated.submit(first)
    other = StepBatch(  # claims that block 5 holds the beginning of another prompt
        step=1, num_tokens=4, num_decode_rows=0, row_tokens=[4], slots=[1], starts=[4], samples=[True],
        admissions=[Admission(1, 1, array("i", range(50, 58)), 8, SamplingParams(), 0)], new_blocks=[(1, 0, [5, 7])],
    )  # fmt: skip
    with pytest.raises(AssertionError, match="request 1 reads wrong KV at 0"):
        simulated.submit(other)
