"""What queues do with blocks whose turn comes while they are held or have children: no flat stream shows it."""

from __future__ import annotations

import pytest

from framework.interfaces.eviction import EvictionPolicy
from plugins.eviction.arc import ARC
from plugins.eviction.fifo import FIFO
from plugins.eviction.lfu import LFU
from plugins.eviction.s3fifo import S3FIFO
from plugins.eviction.sieve import SIEVE
from plugins.eviction.slru import SLRU
from plugins.eviction.two_queue import TwoQueue
from plugins.eviction.workload_aware import WorkloadAware
from tests.eviction.test_policies import Block

QUEUES = [ARC, LFU, S3FIFO, SIEVE, SLRU, TwoQueue, WorkloadAware]


def publish(policy: EvictionPolicy, *blocks: Block) -> None:
    for block in blocks:
        policy.on_insert(block)


def release(policy: EvictionPolicy, block: Block, now_s: float) -> None:
    block.last_used_s = now_s
    policy.add(block)


def hold(policy: EvictionPolicy, block: Block, now_s: float) -> None:
    policy.remove(block)
    block.hits, block.last_used_s = block.hits + 1, now_s
    policy.on_hit(block)


@pytest.mark.parametrize("policy_class", [*QUEUES, FIFO])
def test_a_parent_whose_turn_has_passed_goes_right_after_its_last_child(policy_class: type[EvictionPolicy]) -> None:
    policy = policy_class()
    parent, child, other = Block(0, hash=10, last_used_s=1.0), Block(1, hash=11, depth=1), Block(2, hash=12)
    publish(policy, parent, child, other)
    release(policy, child, 1.0)
    release(policy, other, 2.0)
    assert policy.evict() is child
    policy.add(parent)
    assert [policy.evict(), policy.evict()] == [parent, other]


@pytest.mark.parametrize("policy_class", QUEUES)
def test_a_block_whose_turn_has_passed_while_held_is_the_newest_when_released(
    policy_class: type[EvictionPolicy],
) -> None:
    policy = policy_class()
    held, first, second = Block(0, hash=10), Block(1, hash=11), Block(2, hash=12)
    publish(policy, held, first)
    release(policy, first, 1.0)
    assert policy.evict() is first
    publish(policy, second)
    release(policy, second, 2.0)
    release(policy, held, 3.0)
    assert [policy.evict(), policy.evict()] == [second, held]


def test_sieve_spares_a_visited_block_once_and_leaves_it_in_its_place() -> None:
    policy = SIEVE()
    a, b, c, d = (Block(number, hash=number) for number in range(4))
    publish(policy, a, b, c)
    for block in (a, b, c):
        release(policy, block, 1.0)
    hold(policy, a, 2.0)
    release(policy, a, 3.0)
    assert policy.evict() is b  # the hand passed a
    publish(policy, d)
    release(policy, d, 4.0)
    assert [policy.evict() for _ in range(3)] == [c, d, a]  # a lies behind the hand, d ahead of it


def test_fifo_goes_by_publication_even_if_passed_over() -> None:
    policy = FIFO()
    held, first, second = Block(0, hash=10), Block(1, hash=11), Block(2, hash=12)
    publish(policy, held, first, second)
    release(policy, first, 1.0)
    release(policy, second, 1.0)
    assert policy.evict() is first
    release(policy, held, 3.0)
    assert [policy.evict(), policy.evict()] == [held, second]


@pytest.mark.parametrize("policy_class", QUEUES)
def test_only_what_was_added_and_not_removed_is_evicted(policy_class: type[EvictionPolicy]) -> None:
    policy = policy_class()
    blocks = [Block(number, hash=number) for number in range(6)]
    publish(policy, *blocks)
    for block in blocks:
        release(policy, block, 1.0)
    for block in blocks[:5]:
        hold(policy, block, 2.0)
    assert policy.evict() is blocks[5]
    for block in reversed(blocks[:5]):
        release(policy, block, 3.0)
    assert {policy.evict().id for _ in range(5)} == {0, 1, 2, 3, 4}
