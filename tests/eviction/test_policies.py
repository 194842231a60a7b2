"""LRU, FIFO and SLRU against ordered lists on flat block streams, and what chains of blocks add."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.interfaces.eviction import EvictionPolicy
from plugins.eviction.arc import ARC
from plugins.eviction.fifo import FIFO
from plugins.eviction.lru import LRU
from plugins.eviction.slru import SLRU


@dataclass
class Block:
    id: int
    hash: int | None = None
    depth: int = 0
    category: str = ""
    hits: int = 0
    last_used_s: float = 0.0


def evictions(policy: EvictionPolicy, stream: list[int], capacity: int) -> list[int]:
    """The contents evicted while `stream` asks for contents one after the other, each released before the next."""
    free = [Block(id=number) for number in range(capacity)]
    cached: dict[int, Block] = {}
    evicted = []
    for now_s, content in enumerate(stream):
        block = cached.get(content)
        if block:
            policy.remove(block)
            block.hits += 1
            policy.on_hit(block)
        else:
            if free:
                block = free.pop()
            else:
                block = policy.evict()  # type: ignore[assignment]
                assert block is not None
                assert block.hash is not None
                evicted.append(block.hash)
                del cached[block.hash]
            block.hash, block.hits = content, 0
            cached[content] = block
            policy.on_insert(block)
        block.last_used_s = float(now_s)
        policy.add(block)
    return evicted


def oracle(stream: list[int], capacity: int, hits_count: bool) -> list[int]:
    order: OrderedDict[int, None] = OrderedDict()
    evicted = []
    for content in stream:
        if content in order:
            if hits_count:
                order.move_to_end(content)
            continue
        if len(order) == capacity:
            evicted.append(order.popitem(last=False)[0])
        order[content] = None
    return evicted


@pytest.mark.parametrize(("policy", "hits_count"), [(LRU, True), (FIFO, False)])
@given(stream=st.lists(st.integers(0, 12), max_size=300), capacity=st.integers(1, 8))
def test_flat_streams(policy: type[EvictionPolicy], hits_count: bool, stream: list[int], capacity: int) -> None:
    assert evictions(policy(), stream, capacity) == oracle(stream, capacity, hits_count)


def slru_oracle(stream: list[int], capacity: int, num_segments: int) -> list[int]:
    segments: list[list[int]] = [[] for _ in range(num_segments)]  # oldest first
    evicted = []
    for content in stream:
        rank = next((rank for rank, segment in enumerate(segments) if content in segment), None)
        if rank is None:
            if sum(map(len, segments)) == capacity:
                evicted.append(next(segment for segment in segments if segment).pop(0))
            segments[0].append(content)
            continue
        segments[rank].remove(content)
        rank = min(rank + 1, num_segments - 1)
        segments[rank].append(content)
        share = (sum(map(len, segments))) // num_segments
        for lower in range(rank - 1, -1, -1):
            while len(segments[lower + 1]) > share:
                segments[lower].append(segments[lower + 1].pop(0))
    return evicted


@pytest.mark.parametrize("num_segments", [2, 3])
@given(stream=st.lists(st.integers(0, 12), max_size=300), capacity=st.integers(1, 9))
def test_slru_on_flat_streams(num_segments: int, stream: list[int], capacity: int) -> None:
    assert evictions(SLRU(num_segments=num_segments), stream, capacity) == slru_oracle(stream, capacity, num_segments)


def test_lru_orders_by_use_not_by_when_a_parent_became_a_leaf() -> None:
    policy = LRU()
    child, parent = Block(1, hash=1, depth=1, last_used_s=1.0), Block(0, hash=0, depth=0, last_used_s=1.0)
    young = Block(2, hash=2, last_used_s=5.0)
    policy.add(child)
    policy.add(young)
    assert policy.evict() is child
    policy.add(parent)  # evictable from now on, and older than what was added before
    assert [policy.evict(), policy.evict()] == [parent, young]


def test_lru_drops_the_deepest_of_blocks_used_together() -> None:
    policy = LRU()
    blocks = [Block(number, hash=number, depth=depth, last_used_s=3.0) for number, depth in enumerate((2, 7, 4))]
    for block in blocks:
        policy.add(block)
    assert [policy.evict().depth for _ in blocks] == [7, 4, 2]


def test_fifo_keeps_the_order_of_publication_and_renews_it_for_new_content() -> None:
    policy = FIFO()
    a, b = Block(0, hash=10), Block(1, hash=11)
    for block in (a, b):
        policy.on_insert(block)
    policy.add(b)
    policy.add(a)  # became evictable later, but was published earlier
    assert policy.evict() is a
    a.hash = 12
    policy.on_insert(a)
    policy.add(a)
    assert [policy.evict(), policy.evict()] == [b, a]


def test_arc_moves_the_border_towards_the_list_whose_ghost_came_back() -> None:
    # 2 comes back as a ghost of T1, so that T1 may keep a block; 4, asked for once, then outlives 2, asked for twice.
    assert evictions(ARC(), [1, 1, 2, 3, 2, 4, 5], 2) == [2, 3, 1, 2]
