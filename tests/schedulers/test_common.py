"""What holds for many schedulers: the parts they share, every victim, same input same plan, and wrong values."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.engine import Engine
from framework.engine.request import Request
from framework.interfaces.request import RequestSpec
from framework.registry import SCHEDULERS
from framework.toolkit.schedulers.ranked import WaitingHeap
from framework.toolkit.schedulers.victim import Victim, victim_chooser
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from plugins.schedulers.random import RandomOrder
from tests.engine import traces
from tests.engine.shadow import make_engine, params
from tests.schedulers.drive import Job, serve

VICTIMS = get_args(Victim)
WITH_VICTIM = [entry.name for entry in SCHEDULERS.entries() if any(p.name == "victim" for p in entry.parameters)]


def build(name: str, **parameters: Any) -> Any:
    return SCHEDULERS.build({"name": name, **parameters})


def requests(num: int) -> list[Request]:
    engine = make_engine(ChunkedPrefill(), traces.build_eviction("lru"))
    for _ in range(num):
        engine.add_request(RequestSpec(prompt_token_ids=[1, 2, 3], params=params(4)))
    return list(engine.queue.waiting)


@given(
    changes=st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(0, 9), st.integers(0, 20)),
            st.tuples(st.just("discard"), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("pop_up_to"), st.just(0), st.integers(0, 20)),
        ),
        max_size=300,
    )
)
def test_the_heap_of_waiting_requests_is_a_sorted_dictionary(changes: list[tuple[str, int, int]]) -> None:
    heap, ranks, everybody = WaitingHeap(), dict[int, int](), REQUESTS
    for change, number, rank in changes:
        if change == "push":
            heap.push(everybody[number], rank)
            ranks[number] = rank
        elif change == "discard":
            heap.discard(everybody[number])
            ranks.pop(number, None)
        else:
            expected = sorted((n for n in ranks if ranks[n] <= rank), key=lambda n: (ranks[n], n))
            assert [request.id for request in heap.pop_up_to(rank)] == expected
            ranks = {n: ranks[n] for n in ranks if n not in expected}
        first = heap.first()
        assert (first.id if first else None) == min(ranks, key=lambda n: (ranks[n], n), default=None)
        assert len(heap) == len(ranks)
        assert [request in heap for request in everybody] == [n in ranks for n in range(len(everybody))]


REQUESTS = requests(10)


def test_the_heap_of_waiting_requests_does_not_grow_with_changes() -> None:
    heap = WaitingHeap()
    for rank in range(500):
        heap.push(REQUESTS[rank % 3], rank)
    assert len(heap._heap) <= 2 * 3 + 65


def test_victims() -> None:
    running = [REQUESTS[number] for number in (3, 1, 7, 5)]
    for request, num_computed in zip(running, (9, 2, 2, 4), strict=True):
        request.num_computed = num_computed
    assert [victim_chooser(victim)(running).id for victim in VICTIMS] == [5, 1, 7]


@pytest.mark.parametrize("name", WITH_VICTIM)
@settings(max_examples=12, deadline=None)
@given(trace=traces.traces(), victim=st.sampled_from(VICTIMS), overlap=st.integers(0, 1), seed=st.integers(0, 1000))
def test_every_request_ends_with_any_victim(
    name: str, trace: traces.Trace, victim: str, overlap: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "build_scheduler", lambda name, seed: build(name, victim=victim))
        traces.run_trace(trace, scheduler=name, eviction="lru", overlap=overlap, seed=seed)


@pytest.mark.parametrize("name", WITH_VICTIM)
def test_the_victim_is_the_one_asked_for(name: str) -> None:
    """Three requests outgrow the cache; the first to be preempted is the youngest, the oldest, or the shortest."""
    jobs = [Job(prompt_tokens=n, max_tokens=40, arrival_s=0.01 * i, client="abc"[i]) for i, n in enumerate((20, 8, 12))]
    more = {"refill_below": 3} if name == "decode_first" else {}  # else it would run them one after another
    first = {}
    for victim in VICTIMS:
        preempted: list[int] = []

        def note(engine: Engine, admitted: list[int], preempted: list[int] = preempted) -> None:
            preempted += [request.id for request in engine.queue.waiting if request.num_preemptions]

        serve(build(name, victim=victim, **more), jobs, after_step=note, num_blocks=20, max_num_seqs=3)
        first[victim] = preempted[0]
    assert first == {"youngest": 2, "oldest": 0, "fewest_computed": 1}


@pytest.mark.parametrize(
    "name", ["chunked_prefill", "fair", "highest_response_ratio", "longest_prefix", "priority", "shortest_first"]
)
def test_nobody_is_admitted_into_blocks_that_a_preemption_freed(name: str) -> None:
    num_preempting_steps = num_preempted = 0

    def check(engine: Engine, admitted: list[int]) -> None:
        nonlocal num_preempting_steps, num_preempted
        if engine.plan.num_preempted > num_preempted:
            num_preempting_steps, num_preempted = num_preempting_steps + 1, engine.plan.num_preempted
            assert admitted == []

    jobs = [Job(prompt_tokens=24, max_tokens=40)] * 3 + [Job(prompt_tokens=1, max_tokens=8, arrival_s=0.05)] * 30
    serve(build(name), jobs, after_step=check, num_blocks=30, max_num_seqs=32)
    assert num_preempting_steps > 0


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_the_same_queue_gives_the_same_plans(name: str) -> None:
    jobs = [Job(prompt_tokens=5 + 7 * n % 40, max_tokens=3 + 5 * n % 30, client="ab"[n % 2]) for n in range(20)]
    first, second = (serve(build(name), jobs, num_blocks=40, overlap=1) for _ in range(2))
    assert first.steps == second.steps
    assert first.admitted == second.admitted


def test_random_depends_on_its_seed_and_does_preempt_and_pause() -> None:
    jobs = [Job(prompt_tokens=20, max_tokens=20)] * 8
    one, same, other = (serve(RandomOrder(seed=seed), jobs) for seed in (1, 1, 2))
    assert one.steps == same.steps != other.steps
    assert one.num_preemptions > 0
    calm = serve(RandomOrder(preempt_probability=0, pause_probability=0), jobs)
    assert calm.num_preemptions == 0
    assert len(calm.steps) < len(one.steps)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("decode_first", {"refill_below": 0}, "refill_below=0"),
    ("static_batch", {"batch_size": 0}, "batch_size=0"),
    ("shortest_first", {"aging": -1.0}, r"aging=-1\.0"),
    ("shortest_first", {"aging": float("nan")}, "aging=nan"),
    ("mlfq", {"num_levels": 0}, "num_levels=0"),
    ("mlfq", {"starvation_s": 0.0}, r"starvation_s=0\.0"),
    ("priority", {"aging": float("inf")}, "aging=inf"),
    ("fair", {"output_weight": -1.0}, r"output_weight=-1\.0"),
    ("longest_prefix", {"max_waiting": -1}, "max_waiting=-1"),
    ("random", {"pause_probability": 1.0}, r"pause_probability=1\.0"),
    *((name, {"victim": "nobody"}, "victim='nobody'.*youngest, oldest, fewest_computed") for name in WITH_VICTIM),
]


@pytest.mark.parametrize(("name", "parameters", "message"), WRONG)
def test_a_wrong_value_is_named(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **parameters)
