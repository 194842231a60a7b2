"""On flat block streams the policies are those of the papers: their hits against the simulator libCacheSim."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from framework.records.analysis.block_cache import replay_flat
from framework.registry import EVICTIONS
from framework.registry.discovery import discover
from tests.eviction import mooncake

lcs = pytest.importorskip("libcachesim", reason="libcachesim has wheels for x86-64 Linux only")
discover()

EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "FIFO": ("fifo", {}),
    "LRU": ("lru", {}),
    "LFU": ("lfu", {}),
    "Sieve": ("sieve", {}),
    "TwoQ": ("two_queue", {"in_ratio": 0.25, "out_ratio": 0.5}),
    "S3FIFO": ("s3fifo", {"small_ratio": 0.1, "ghost_ratio": 0.9, "promote_at": 2, "fill": "main"}),
    "Belady": ("belady", {}),
}
NEAR: dict[str, tuple[str, dict[str, Any]]] = {
    "ARC": ("arc", {}),  # adapts one eviction later, see its docstring
    "SLRU": ("slru", {"num_segments": 4, "fill": "spread"}),  # spreads what filled the cache by age and hits
}


def library_hits(name: str, keys: Sequence[int], num_blocks: int) -> int:
    cache = getattr(lcs, name)(cache_size=num_blocks, hashpower=20)
    request, hits = lcs.Request(), 0
    request.obj_size = 1
    next_use: dict[int, int] = {}
    nexts = [1 << 62] * len(keys)
    for index in range(len(keys) - 1, -1, -1):
        nexts[index] = next_use.get(keys[index], 1 << 62)
        next_use[keys[index]] = index
    for key, following in zip(keys, nexts, strict=True):
        request.obj_id, request.next_access_vtime = key, following
        hits += cache.get(request)
    return hits


def our_hits(choice: tuple[str, dict[str, Any]], keys: Sequence[int], num_blocks: int) -> int:
    name, parameters = choice
    return replay_flat(EVICTIONS.get(name)(**parameters), [keys], num_blocks).hits


def skewed_keys(seed: int) -> list[int]:
    rng = random.Random(seed)
    return [int(rng.paretovariate(0.6)) % 2000 for _ in range(20_000)]


@pytest.mark.parametrize("num_blocks", [20, 57, 200])
@pytest.mark.parametrize("name", EXACT)
def test_equal_on_a_skewed_stream(name: str, num_blocks: int) -> None:
    keys = skewed_keys(num_blocks)
    assert our_hits(EXACT[name], keys, num_blocks) == library_hits(name, keys, num_blocks)


@pytest.mark.parametrize("num_blocks", [20, 57, 200])
def test_arc_on_a_stream_that_makes_it_adapt(num_blocks: int) -> None:
    keys = skewed_keys(num_blocks)
    for start in range(0, len(keys), 2000):
        keys[start : start + 600] = [10_000 + start + i % (num_blocks + num_blocks // 2) for i in range(600)]  # a scan
    theirs = library_hits("ARC", keys, num_blocks)
    assert our_hits(("arc", {}), keys, num_blocks) == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("num_blocks", [5_859, 30_000])
@pytest.mark.parametrize("name", [*EXACT, *NEAR])
def test_hit_rate_on_the_mooncake_trace(name: str, num_blocks: int) -> None:
    """On its first third; experiments/eviction_oracle has all of it, at six sizes."""
    keys = [key for chain in mooncake.chains()[:4_000] for key in chain]
    ours = our_hits({**EXACT, **NEAR}[name], keys, num_blocks) / len(keys)
    theirs = library_hits(name, keys, num_blocks) / len(keys)
    assert ours == pytest.approx(theirs, abs=0.005 if name in NEAR else 0.00005)
