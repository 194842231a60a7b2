"""Belady in a run of the engine: it is told the prompts beforehand, and no other policy finds more blocks."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.engine.fleet import Fleet
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.request import RequestSpec
from framework.interfaces.workload import TimedRequest
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo
from framework.registry import EVICTIONS
from framework.registry.discovery import discover
from framework.workloads.future import announce, tell_future
from plugins.eviction.belady import Belady
from plugins.routers.round_robin import RoundRobin
from plugins.schedulers.chunked_prefill import ChunkedPrefill
from tests.engine.shadow import make_engine, params

discover()
Prompts = tuple[tuple[int, ...], ...]


@functools.cache
def flat() -> Prompts:
    """Single blocks, some much more often than others, and a token to compute."""
    rng = random.Random(1)
    return tuple((int(rng.paretovariate(0.6)) % 60 + 1,) * 4 + (99,) for _ in range(400))


@functools.cache
def turns() -> Prompts:
    """Conversations: each prompt is the one before it in its conversation and some more blocks."""
    rng = random.Random(2)
    talks: list[tuple[int, ...]] = [()] * 12
    prompts = []
    for number in range(300):
        talk = min(int(rng.paretovariate(0.8)), 12) - 1
        talks[talk] = (talks[talk] if len(talks[talk]) < 28 else ()) + (number % 40_000 + 1,) * 8
        prompts.append((*talks[talk], 7))
    return tuple(prompts)


@functools.cache
def hits(name: str, prompts: Callable[[], Prompts], num_blocks: int) -> int:
    """Blocks found while the prompts are served one after the other."""
    engine = make_engine(ChunkedPrefill(), EVICTIONS.get(name)(), num_blocks=num_blocks, max_num_seqs=1)
    announce(engine, (RequestSpec(prompt_token_ids=prompt) for prompt in prompts()))
    for prompt in prompts():
        engine.add_request(RequestSpec(prompt_token_ids=prompt, params=params(1)))
    while engine.has_work:
        engine.step()
    return engine.cache.counters.hit_blocks


@pytest.mark.parametrize(("prompts", "num_blocks"), [(flat, 12), (flat, 30), (turns, 40)])
@pytest.mark.parametrize("name", EVICTIONS.names())
def test_no_policy_finds_more_blocks(name: str, prompts: Callable[[], Prompts], num_blocks: int) -> None:
    assert hits(name, prompts, num_blocks) <= hits("belady", prompts, num_blocks)


def test_it_is_far_ahead_of_lru() -> None:
    for prompts, num_blocks in ((flat, 12), (turns, 40)):
        assert hits("belady", prompts, num_blocks) > 1.1 * hits("lru", prompts, num_blocks)


def test_requests_that_run_together_and_preempt_each_other() -> None:
    """Counting uses instead of requests would go astray here: blocks are found twice, or published by a mate."""

    def served(name: str) -> int:
        engine = make_engine(ChunkedPrefill(), EVICTIONS.get(name)(), num_blocks=30, max_num_seqs=4)
        announce(engine, (RequestSpec(prompt_token_ids=prompt) for prompt in turns()))
        for prompt in turns():
            engine.add_request(RequestSpec(prompt_token_ids=prompt, params=params(9, ignore_eos=True)))
        preemptions = 0
        while engine.has_work:
            preemptions += sum(output.record.num_preemptions for output in engine.step() if output.record)
        assert preemptions > 10
        return engine.cache.counters.hit_blocks

    assert served("belady") > served("lru")


def test_refused_prompts_keep_their_numbers() -> None:
    policy = Belady()
    engine = make_engine(ChunkedPrefill(), policy, num_blocks=4)
    announce(engine, (RequestSpec(prompt_token_ids=prompt) for prompt in [(1,) * 500, (), (2,) * 5]))
    assert policy._uses is not None
    assert list(policy._uses.values()) == [[2]]


def test_prompts_by_key_and_refused_requests() -> None:
    """Keys of 8 tokens are two blocks each; the last token of a prompt is never looked up."""
    policy = Belady()
    engine = make_engine(ChunkedPrefill(), policy)
    engine.intake.simulated_block_size = 4
    given = [((5, 6), 16), ((5,), 8), ((5, 6), 13), ((), 9)]
    requests = [TimedRequest(prompt_keys=keys, num_prompt_tokens=number, key_tokens=8) for keys, number in given]
    tell_future(engine, [TimedRequest(error="refused before"), *requests])
    assert policy._uses is not None
    assert sorted(policy._uses.values()) == [[2, 0], [2, 0], [2, 1, 0]]


def test_where_the_future_depends_on_the_run_it_is_refused() -> None:
    engine = make_engine(ChunkedPrefill(), Belady())
    turn = TimedRequest(prompt_token_ids=[1, 2], after=0)
    with pytest.raises(IncompatibleError, match=r"Belady needs to know the future.*answers that are not known yet"):
        tell_future(engine, [TimedRequest(prompt_token_ids=[1]), turn])
    fleet = Fleet([engine, make_engine(ChunkedPrefill(), Belady())], RoundRobin())
    with pytest.raises(IncompatibleError, match=r"Belady needs to know the future.*executor.replicas=1"):
        tell_future(fleet, [])
    tell_future(make_engine(ChunkedPrefill(), EVICTIONS.get("lru")()), [turn])


@pytest.mark.parametrize("executor", ["executor.device=cpu", "executor=simulated"])
def test_a_cell_runs_with_belady(executor: str, tmp_path: Path) -> None:
    cell = CellInfo(folder=tmp_path / "cell", cell_id="cell", config={})
    overrides = ["eviction=belady", "model=tiny", "tracker=files", "workload=synthetic", "workload.num_requests=6"]
    overrides += ["engine.num_blocks=24", "engine.max_model_len=256", executor]
    assert run_cell(compose(overrides), cell) == "completed"
    metrics = read_record(tmp_path / "cell").metrics
    assert metrics is not None
    assert metrics["evictions"]
