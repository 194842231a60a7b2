"""Policies that rate a block: what they rate it by, and the bound that they are held against."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.records.analysis.block_cache import replay_chains, replay_flat
from framework.registry import EVICTIONS
from framework.registry.discovery import discover
from plugins.eviction.belady import Belady
from plugins.eviction.cost_aware import CostAware
from plugins.eviction.length_aware import LengthAware
from plugins.eviction.lfu import LFU
from plugins.eviction.random import RandomEviction
from plugins.eviction.workload_aware import WorkloadAware
from tests.eviction.test_policies import Block, evictions

discover()
streams = st.lists(st.integers(0, 6), max_size=40)


def most_hits(stream: tuple[int, ...], num_blocks: int) -> int:
    """Over all choices of victims."""

    @cache
    def best(index: int, cached: frozenset[int]) -> int:
        if index == len(stream):
            return 0
        key = stream[index]
        if key in cached:
            return 1 + best(index + 1, cached)
        if len(cached) < num_blocks:
            return best(index + 1, cached | {key})
        return max(best(index + 1, cached - {victim} | {key}) for victim in cached)

    return best(0, frozenset())


@settings(deadline=None)
@given(stream=streams.map(tuple), num_blocks=st.integers(1, 4))
def test_belady_is_optimal_on_flat_streams(stream: tuple[int, ...], num_blocks: int) -> None:
    assert replay_flat(Belady(), [stream], num_blocks).hits == most_hits(stream, num_blocks)


@pytest.mark.parametrize("name", EVICTIONS.names())
@given(stream=st.lists(st.integers(0, 30), max_size=200), num_blocks=st.integers(1, 20))
def test_no_policy_beats_belady(name: str, stream: list[int], num_blocks: int) -> None:
    bound = replay_flat(Belady(), [stream], num_blocks).hits
    assert replay_flat(EVICTIONS.get(name)(), [stream], num_blocks).hits <= bound


def test_belady_without_the_future_says_so() -> None:
    with pytest.raises(ValueError, match=r"eviction=belady needs to know all requests.*eviction=lru"):
        Belady().on_request(0)


def test_random_is_uniform_and_repeats_with_its_seed() -> None:
    def victims(seed: int) -> list[int]:
        policy = RandomEviction(seed=seed)
        blocks = [Block(number, hash=number) for number in range(10)]
        for block in blocks:
            policy.add(block)
        policy.remove(blocks[3])
        return [policy.evict().id for _ in range(9)]

    assert victims(1) == victims(1) != victims(2)
    assert sorted(victims(5)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    first = Counter(victims(seed)[0] for seed in range(1800))
    assert set(first) == {0, 1, 2, 4, 5, 6, 7, 8, 9}
    assert max(abs(count - 200) for count in first.values()) < 70  # five standard deviations


def test_lfu_with_ghosts_remembers_how_often_what_it_evicted_was_used() -> None:
    stream = [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 1, 4, 5]
    assert evictions(LFU(), stream, 2) == [1, 2, 1, 4]  # 1 came back as new
    assert evictions(LFU(ghost_ratio=2.0), stream, 2) == [1, 2, 3, 4]  # 1 came back with its fourth use: a tie


def test_length_aware_drops_the_rarest_and_of_these_the_deepest() -> None:
    policy = LengthAware()
    for number, (hits, depth) in enumerate([(2, 9), (0, 1), (0, 5), (1, 0)]):
        policy.add(Block(number, hash=number, hits=hits, depth=depth))
    assert [policy.evict().id for _ in range(4)] == [2, 1, 3, 0]


def test_cost_aware_keeps_deep_blocks_until_they_have_faded() -> None:
    policy = CostAware(linear_depth_blocks=1.0)
    deep, blocks = Block(0, hash=100, depth=2), [Block(number, hash=number) for number in range(1, 9)]
    policy.on_insert(deep)
    policy.add(deep)  # worth 3
    gone = []
    for block in blocks:  # worth 1 above the last victim's
        policy.on_insert(block)
        policy.add(block)
        gone.append(policy.evict().id)
    assert gone.index(0) == 2


def test_cost_aware_renews_the_worth_of_a_block_at_a_hit() -> None:
    policy = CostAware(linear_depth_blocks=float("inf"))
    assert evictions(policy, [1, 2, 3, 1, 4, 1, 5], 2) == [2, 3, 4]


def test_workload_aware_learns_that_one_category_is_never_used_again() -> None:
    """8 conversations come back after 24 requests. Prompts that are not asked again flood the 16 blocks in between."""
    chains = []
    for number in range(600):
        chains.append([1_000_000 + number])  # never again
        chains.append([2_000_000 + number])
        talk = number % 8
        chains.append([10_000 * (talk + 1)])
    aware = replay_chains(WorkloadAware(), chains, 16).hits
    assert replay_chains(EVICTIONS.get("lru")(), chains, 16).hits == 0
    assert aware > 0.9 * 600  # of 592 that a cache without limits would give


@pytest.mark.parametrize("categories", [("chat", "batch"), ("", "")])
def test_workload_aware_tells_requests_by_their_category(categories: tuple[str, str]) -> None:
    """Each block of one category comes back once, each of the other never. Only a name can say which is which, since
    both are new when they have to be judged, and the young ones of the wrong category push the others out."""
    once, never = categories
    rng, policy, free = random.Random(4), WorkloadAware(), [Block(number) for number in range(24)]
    cached: dict[int | None, Block] = {}
    due: dict[int, list[int]] = {}
    hits = 0
    for now_s in range(4000):
        asked = [(2 * now_s, never), (2 * now_s + 1, never)] if now_s % 2 else [(2 * now_s, once)]
        if now_s % 2 == 0:
            due.setdefault(now_s + 2 * rng.randint(5, 12), []).append(2 * now_s)
        for content, category in [*asked, *((content, once) for content in due.pop(now_s, ()))]:
            block = cached.get(content)
            if block is not None:
                policy.remove(block)
                hits, block.hits, block.last_used_s = hits + 1, block.hits + 1, now_s
                policy.on_hit(block)
            else:
                block = free.pop() if free else policy.evict()
                cached.pop(block.hash, None)
                block.hash, block.category, block.last_used_s = content, category, now_s
                cached[content] = block
                policy.on_insert(block)
            policy.add(block)
    assert (hits > 1800) == (once != never), hits  # of 2000


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("lfu", {"ghost_ratio": -1.0}, "eviction.ghost_ratio=-1.0"),
        ("slru", {"num_segments": 1}, "eviction.num_segments=1"),
        ("two_queue", {"in_ratio": 1.0}, "eviction.in_ratio=1.0"),
        ("two_queue", {"out_ratio": float("nan")}, "eviction.out_ratio=nan"),
        ("s3fifo", {"promote_at": 4}, "promote_at=4"),
        ("s3fifo", {"small_ratio": 0.0}, "eviction.small_ratio=0.0"),
        ("cost_aware", {"linear_depth_blocks": 0.0}, "eviction.linear_depth_blocks=0.0"),
        ("workload_aware", {"num_turns": 0}, "eviction.num_turns=0"),
    ],
)
def test_bad_parameters_are_named(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EVICTIONS.get(name)(**parameters)
