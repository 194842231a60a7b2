"""The cache without an engine: what it counts, what it refuses, and LRU on prefixes against a naive model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.interfaces.errors import PluginError
from framework.interfaces.eviction import CachedBlock
from framework.records.analysis.block_cache import BlockCache, replay_chains, replay_flat
from plugins.eviction.lru import LRU
from tests.eviction import mooncake
from tests.eviction.stubborn import Stubborn


def keys_of(tokens: Sequence[int]) -> list[int]:
    """Chained: a key stands for its token and all before it."""
    return [hash(tuple(tokens[: end + 1])) for end in range(len(tokens))]


prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5).map(keys_of), max_size=40)


def naive_lru_hits(chains: list[list[int]], num_blocks: int) -> int:
    used: dict[int, tuple[int, int]] = {}  # key -> (time, -depth)
    parent: dict[int, int | None] = {}
    hits = 0
    for now, chain in enumerate(chains):
        found = next((i for i, key in enumerate(chain) if key not in used), len(chain))
        hits += found
        for _ in range(max(0, len(used) + len(chain) - found - num_blocks)):
            leaves = [key for key in used if key not in chain[:found] and key not in parent.values()]
            victim = min(leaves, key=lambda key: used[key])
            del used[victim], parent[victim]
        for depth, key in enumerate(chain):
            used[key], parent[key] = (now, -depth), chain[depth - 1] if depth else None
    return hits


@given(chains=prompts, num_blocks=st.integers(5, 12))
def test_lru_on_chains_equals_a_naive_model(chains: list[list[int]], num_blocks: int) -> None:
    stats = replay_chains(LRU(), chains, num_blocks)
    assert stats.hits == stats.prefix_hits == naive_lru_hits(chains, num_blocks)
    assert stats.lookups == sum(map(len, chains))
    assert stats.evictions == max(0, stats.lookups - stats.hits - num_blocks)


@given(chains=prompts, num_blocks=st.integers(1, 12))
def test_flat_hits_equal_chains_of_one_block(chains: list[list[int]], num_blocks: int) -> None:
    flat = replay_flat(LRU(), chains, num_blocks)
    alone = replay_chains(LRU(), [[key] for chain in chains for key in chain], num_blocks)
    assert (flat.hits, flat.evictions, flat.lookups) == (alone.hits, alone.evictions, alone.lookups)
    assert flat.prefix_hits <= flat.hits


@pytest.mark.parametrize(("percent", "hit_rate"), [(1, 0.0523), (5, 0.1954), (25, 0.3535)])
def test_lru_figures_of_the_mooncake_trace(percent: int, hit_rate: float) -> None:
    chains = mooncake.chains()
    num_blocks = len({key for chain in chains for key in chain}) * percent // 100
    assert replay_flat(LRU(), chains, num_blocks).prefix_hit_rate == pytest.approx(hit_rate, abs=0.00005)


def test_evicting_leaves_first_serves_longer_prefixes() -> None:
    chain_a, chain_b = keys_of([1, 1, 1]), keys_of([2])
    requests = [chain_a, chain_b, chain_a]
    assert replay_flat(LRU(), requests, 3).prefix_hits == 0  # the head of the prefix went, the rest is out of reach
    assert replay_chains(LRU(), requests, 3).prefix_hits == 2


def test_a_hit_after_a_gap_is_no_prefix_hit() -> None:
    stats = replay_flat(LRU(), [[1, 2, 3], [1, 9, 3]], 8)
    assert (stats.hits, stats.prefix_hits, stats.hit_rate, stats.prefix_hit_rate) == (2, 1, 2 / 6, 1 / 6)


def test_a_victim_that_is_held_is_refused() -> None:
    cache = BlockCache(Stubborn(), 2)
    cache.access([1, 2], 0.0)
    cache.policy.first = cache.cached[1]  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="Stubborn returned"):
        cache.access([1, 3], 1.0)


def test_a_victim_that_is_gone_is_refused() -> None:
    class Nothing(Stubborn):
        def evict(self) -> CachedBlock:
            return None  # type: ignore[return-value]

    with pytest.raises(PluginError, match="Nothing returned None"):
        replay_flat(Nothing(), [[1, 2]], 1)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="num_blocks=0"):
        BlockCache(LRU(), 0)
    with pytest.raises(ValueError, match="3 blocks does not fit into 2"):
        replay_chains(LRU(), [[1, 2, 3]], 2)
    with pytest.raises(ValueError, match="block key 2 came after another key"):
        replay_chains(LRU(), [[1, 2], [3, 2]], 8)
    with pytest.raises(ValueError, match="block key 2 came after another key"):
        replay_chains(LRU(), [[1, 2], [2]], 8)
