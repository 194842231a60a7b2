"""The heap of `ScorePolicy` against a search of everything that was added and not removed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine.block import Block
from plugins.eviction.lru import LRU

STEPS = st.lists(st.tuples(st.sampled_from("aaree"), st.integers(0, 11), st.integers(0, 3)), max_size=80)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_victim_is_the_least_of_all(steps: list[tuple[str, int, int]]) -> None:
    policy, there = LRU(), dict[int, Block]()
    blocks = [Block(number, hash=number) for number in range(12)]
    for what, number, time_s in steps:
        block = blocks[number]
        if what == "a" and number not in there:
            block.last_used_s, block.depth = float(time_s), time_s
            policy.add(block)
            there[number] = block
        elif what == "r" and number in there:
            policy.remove(there.pop(number))
        elif what == "e" and there:
            least = min(there.values(), key=lambda one: (one.last_used_s, -one.depth, one.id))
            assert policy.evict() is there.pop(least.id)
    rest = sorted(there.values(), key=lambda one: (one.last_used_s, -one.depth, one.id))
    assert [policy.evict() for _ in rest] == rest
