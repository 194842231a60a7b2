"""Plugins after papers, each against what its paper says that it does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.engine import Engine
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.request import RequestSpec
from framework.interfaces.router import Arrival, ReplicaView, Router
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Queue, Scheduler, StepPlan
from framework.registry import REGISTRIES
from framework.registry.discovery import discover
from framework.toolkit.schedulers.in_order import run_in_order
from plugins.eviction.lru import LRU
from plugins.eviction.tail_lru import TailLRU
from plugins.predictors.oracle import Oracle
from plugins.routers.polyserve import PolyServe
from plugins.routers.preble import Preble
from plugins.schedulers.andes import Andes
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from plugins.schedulers.dlpm import DeficitLongestPrefix
from plugins.schedulers.ltr import LearningToRank
from plugins.schedulers.past_future import PastFuture, peak_tokens
from plugins.schedulers.slos_serve import SlosServe
from plugins.schedulers.sola import Sola
from plugins.schedulers.trail import Trail
from tests.engine.shadow import make_engine
from tests.schedulers.drive import Job, serve

STUDY = Path(__file__).resolve().parents[2] / "experiments" / "papers" / "study.py"


class ByPriority(Scheduler):
    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        requests = [*queue.running, *queue.waiting]
        run_in_order(sorted(requests, key=lambda one: (one.priority, one.id)), queue, plan)


def test_the_first_of_an_order_takes_the_place_of_the_last() -> None:
    jobs = [Job(max_tokens=30, priority=2), Job(max_tokens=30, priority=1), Job(arrival_s=0.02, priority=0)]
    served = serve(ByPriority(), jobs, max_num_seqs=2)
    assert served.admitted == [0, 1, 2, 0] or served.admitted == [1, 0, 2, 0]
    assert [served.records[number].num_preemptions for number in range(3)] == [1, 0, 0]


@pytest.mark.parametrize("policy", [LearningToRank, Trail])
def test_the_shortest_answers_come_first(policy: type[Scheduler]) -> None:
    jobs = [Job(max_tokens=length) for length in (9, 3, 7, 5)]
    served = serve(policy(), jobs, predictor=Oracle(), max_num_seqs=1)
    assert sorted(served.records, key=lambda number: served.records[number].finish_s) == [1, 3, 2, 0]


@pytest.mark.parametrize(("steps", "last"), [(10_000, True), (50, False)])
def test_ltr_promotes_what_has_waited_for_long(steps: int, last: bool) -> None:
    jobs = [Job(max_tokens=40), *(Job(max_tokens=4, arrival_s=0.0162 * number) for number in range(60))]
    served = serve(LearningToRank(starvation_steps=steps, quantum_steps=45), jobs, predictor=Oracle(), max_num_seqs=1)
    ends = sorted(served.records, key=lambda number: served.records[number].finish_s)
    assert (ends[-1] == 0) is last


@pytest.mark.parametrize(("preemptible", "preempted"), [(0.0, 0), (0.8, 1)])
def test_trail_lets_a_request_go_on_once_it_is_far(preemptible: float, preempted: int) -> None:
    jobs = [Job(max_tokens=40), Job(max_tokens=3, arrival_s=0.03)]
    served = serve(Trail(preemptible=preemptible), jobs, predictor=Oracle(), max_num_seqs=1)
    assert served.records[0].num_preemptions == preempted
    late = [Job(max_tokens=40), Job(max_tokens=3, arrival_s=0.004 * 38)]
    assert serve(Trail(), late, predictor=Oracle(), max_num_seqs=1).records[0].num_preemptions == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=6))
def test_the_peak_is_that_of_a_step_by_step_count(batch: list[tuple[int, int]]) -> None:
    """A request holds its tokens and what it has produced until the step in which it ends."""
    last = max(left for left, _ in batch)
    expected = max(sum(tokens + step for left, tokens in batch if left >= step) for step in range(1, last + 1))
    assert peak_tokens([(float(left), tokens) for left, tokens in batch]) == expected


def test_past_future_with_known_lengths_preempts_nothing() -> None:
    jobs = [Job(prompt_tokens=8, max_tokens=length) for length in (40, 12, 33, 50, 21, 8, 44, 30)]
    machine = {"num_blocks": 30, "block_size": 4, "max_num_seqs": 8}
    assert serve(ChunkedPrefill(), jobs, **machine).num_preemptions > 0
    served = serve(PastFuture(reserved=0.2), jobs, predictor=Oracle(), **machine)
    assert served.num_preemptions == 0
    assert max(map(len, served.steps)) > 1, "it does run several at once"


def test_dlpm_prefers_cached_prefixes_within_the_quantum() -> None:
    shared = tuple(range(1000, 1040))
    jobs = [Job(prompt=shared, max_tokens=8, client="a")]
    jobs += [Job(prompt=(*shared, number), max_tokens=2, arrival_s=0.01, client="a") for number in range(4)]
    jobs += [Job(prompt=tuple(range(30)), max_tokens=2, arrival_s=0.01, client="b")]
    local = serve(DeficitLongestPrefix(quantum=10_000), jobs, max_num_seqs=1)
    assert local.admitted == [0, 1, 2, 3, 4, 5]
    fair = serve(DeficitLongestPrefix(quantum=8), jobs, max_num_seqs=1)
    assert fair.admitted.index(5) == 1, "client a has used up more than b"


@pytest.mark.parametrize("debt", [0.0, 7.0, 1e17])
def test_dlpm_grants_at_once_what_rounds_of_a_quantum_would(debt: float) -> None:
    scheduler = DeficitLongestPrefix(quantum=7, output_weight=0.0)
    scheduler.deficits = {"a": -debt, "b": -debt - 20}
    jobs = [Job(prompt_tokens=4, client=client) for client in ("b", "a")]
    assert serve(scheduler, jobs, max_num_seqs=1).admitted[0] == 1
    with pytest.raises(ValueError, match=r"scheduler.quantum=0.5 must be a finite number, at least 1"):
        DeficitLongestPrefix(quantum=0.5)


def cached_after(policy: EvictionPolicy, *prompts: list[int]) -> list[int]:
    """How many blocks of each prompt are cached once all were served, of one token per block, in a cache of 20."""
    engine = make_engine(ChunkedPrefill(), policy, num_blocks=20, block_size=1)
    for prompt in prompts:
        engine.add_request(RequestSpec(prompt_token_ids=prompt, params=SamplingParams(max_tokens=1, ignore_eos=True)))
        while engine.has_work:
            engine.step()
    built = [
        engine.intake.build(90 + i, RequestSpec(prompt_token_ids=[*p, 7]), arrival_s=0) for i, p in enumerate(prompts)
    ]
    return [len(engine.cache.match(one)) for one in built]


def test_tail_lru_spares_what_can_be_computed_in_time() -> None:
    long, other, new = list(range(100, 110)), list(range(200, 206)), list(range(300, 307))
    assert cached_after(LRU(), long, other, new) == [7, 6, 7]
    assert cached_after(TailLRU(threshold_blocks=0, next_blocks=0), long, other, new) == [7, 6, 7], "nothing is spare"
    # The last 4 blocks of each conversation are spare: the older ones go first, and then the end of the next one.
    assert cached_after(TailLRU(threshold_blocks=4, next_blocks=0), long, other, [*new, 1, 2]) == [6, 5, 9]


def arrival(number: int, num_prompt: int = 100, **fields: Any) -> Arrival:
    spec = RequestSpec(prompt_token_ids=[1], **fields)
    return Arrival(id=number, arrival_s=0.001 * number, num_prompt=num_prompt, params=spec.params, spec=spec)


def replica(index: int, num_requests: int = 0, **fields: Any) -> ReplicaView:
    return ReplicaView(index=index, num_requests=num_requests, num_prompt_tokens=0, num_blocks=100, **fields)


def test_preble_exploits_a_long_prefix_and_explores_for_a_short_one() -> None:
    path = list(range(10))
    views = [replica(0, num_cached_blocks=8), replica(1)]
    router: Router = Preble(output_weight=0)
    assert [router.route(arrival(n), path, views) for n in range(4)] == [0, 0, 0, 0]
    short = [replica(0, num_cached_blocks=3), replica(1)]
    assert [Preble(output_weight=0).route(arrival(0), path, short)] == [0], "3 blocks are 3 blocks, on idle replicas"
    assert [router.route(arrival(n), path, short) for n in range(4, 6)] == [1, 0], "but not on a busy one"
    full = [replica(0, num_used_blocks=100, num_cached_blocks=3), replica(1)]
    assert Preble(output_weight=0).route(arrival(0), path, full) == 1, "nor where they cost evictions"


def test_preble_balances_before_it_exploits() -> None:
    path, views = list(range(10)), [replica(0, num_cached_blocks=10), replica(1)]
    router = Preble(output_weight=1.0)
    assert {router.route(arrival(n), path, views) for n in range(40)} == {0, 1}


def test_polyserve_fills_one_replica_per_pace_as_far_as_it_goes() -> None:
    router, counts, sent = PolyServe(base_s=0.01, request_s=0.001), [0, 0, 0], []
    for number, pace_s in enumerate([0.02] * 12 + [0.05] * 3 + [0.015] * 4):
        views = [replica(index, count) for index, count in enumerate(counts)]
        chosen = router.route(arrival(number, tpot_slo_s=pace_s), (), views)
        counts[chosen] += 1
        sent.append(chosen)
    assert sent[:12] == [0] * 10 + [1] * 2, "10 requests keep 0.02 s"
    assert sent[12:15] == [2] * 3, "another pace has a replica of its own"
    assert set(sent[15:]) == {1, 2}, "no replica is left: the least loaded ones"


def test_polyserve_lets_a_loose_pace_share_a_tighter_replica() -> None:
    router = PolyServe(base_s=0.01, request_s=0.001)
    assert router.route(arrival(0, tpot_slo_s=0.02), (), [replica(0), replica(1)]) == 0
    assert router.route(arrival(1, tpot_slo_s=0.05), (), [replica(0, 1), replica(1)]) == 1
    full = [replica(0, 1), replica(1, 40)]
    assert router.route(arrival(2, tpot_slo_s=0.05), (), full) == 0


def test_andes_serves_the_reader_who_would_wait() -> None:
    """The first reader has far more than could be read by now when the second one comes."""
    jobs = [Job(max_tokens=300), Job(max_tokens=20, arrival_s=0.6)]
    served = serve(Andes(ttft_s=0.1, tpot_s=0.1, quantum_steps=5), jobs, max_num_seqs=1)
    assert served.records[0].num_preemptions >= 1
    assert served.records[1].finish_s < served.records[0].finish_s


def test_sola_gives_prompts_what_the_pace_allows() -> None:
    """The shadow takes 4 ms and 20 us per token, so that a pace of 4.2 ms is kept with few prompt tokens."""
    first = [Job(prompt_tokens=8, max_tokens=300), Job(prompt_tokens=9, max_tokens=300)]
    jobs = [*first, *(Job(prompt_tokens=300, max_tokens=2, arrival_s=0.12 + number * 0.02) for number in range(25))]
    chunks = []
    for pace_s in (0.0042, 0.05):
        served = serve(Sola(tpot_s=pace_s, ttft_s=0.001), jobs, max_num_batched_tokens=512)
        beside_decodes = [step for step in served.steps if 0 in step and max(step) > 1]
        chunks.append(max(num for step in beside_decodes[-5:] for num in step.values()))
    assert chunks[0] < 300 == chunks[1]


def test_slos_serve_guarantees_what_it_can_and_serves_the_rest_behind() -> None:
    """Three prompts of 400 tokens come at once where a step holds 100: within 60 ms, 5 ms each, three fit."""
    scheduler = SlosServe(ttft_s=0.06, tpot_s=0.006, first_chunk_tokens=100)
    seen: dict[int, bool] = {}

    def note(engine: Engine) -> None:
        seen.update(scheduler.guaranteed)

    jobs = [Job(max_tokens=200), *(Job(prompt_tokens=400, max_tokens=2, arrival_s=0.1) for _ in range(5))]
    served = serve(scheduler, jobs, before_step=note, max_num_batched_tokens=512)
    assert seen[0]
    num_kept = sum(seen[number] for number in range(1, 6))
    assert 1 <= num_kept < 5
    kept = [number for number in range(1, 6) if seen[number]]
    assert kept == list(range(1, 1 + num_kept)), "of equals the first to arrive"
    firsts = [served.records[number].token_times_s[0] for number in range(1, 6)]
    assert firsts == sorted(firsts)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("study", STUDY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study", module)
    spec.loader.exec_module(module)
    return module


def test_the_small_form_of_the_study(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = study.main(["--only", "dlpm", "--requests", "8", "--seeds", "0"])
    paper = study.PAPERS["dlpm"]
    assert [row[1:3] for row in found] == [[arm, metric] for arm in paper.arms for metric in paper.metrics]
    assert "| dlpm | fair | prefix_cache_hit_rate |" in capsys.readouterr().out


def test_the_arms_of_the_study_name_what_there_is(study: Any) -> None:
    discover()
    for paper in study.PAPERS.values():
        for arm in paper.arms.values():
            for key, _, value in (override.partition("=") for override in arm):
                kind, _, parameter = key.partition(".")
                chosen = dict(override.split("=") for override in arm)[kind]
                entry = REGISTRIES[kind].entry(chosen)
                assert not parameter or parameter in {one.name for one in entry.parameters}, (key, value)


def test_ratios_are_geometric_means_with_intervals(study: Any) -> None:
    assert study.ratio([2.0, 8.0, 4.0, 4.0, 4.0], [1.0, 4.0, 2.0, 2.0, 2.0]) == "2.00 [2.00, 2.00]"
    assert study.ratio([2.0, None], [1.0, 3.0]) == "2.00"
    assert study.ratio([1.0], [0.0]) == "-"
