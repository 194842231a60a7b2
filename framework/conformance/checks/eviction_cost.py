"""The cost of a decision in a large cache, in CPU time of this process, which a busy machine does not disturb."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from framework.conformance.kit.finding import Budget, Violation
from framework.engine.block import Block
from framework.interfaces.eviction import EvictionPolicy, NeedsFuture

RULE = "a decision is cheap"
BOUND_US = 100.0
"""Well above what O(log n) takes in pure Python at a million blocks; a scan of them takes hundreds of times longer."""

_NUM_DECISIONS = 20_000
_MAX_S = 2.0


def decision_cost(build: Callable[[], EvictionPolicy], budget: Budget) -> str:
    """Mean time of one eviction and one hit (with `on_insert`, `add`, `on_hit` and `remove`) in a full cache.

    Raises:
        Violation: above `BOUND_US` each.
    """
    policy, num_blocks = build(), budget.num_cost_blocks
    if isinstance(policy, NeedsFuture):
        policy.on_future([range(num_blocks + _NUM_DECISIONS)])
    blocks = [Block(number, hash=number) for number in range(num_blocks)]
    gc.collect()
    gc.disable()  # a collection over a million blocks would be what is measured
    try:
        for block in blocks:
            policy.on_insert(block)
            block.last_used_s = block.id * 1e-3
            policy.add(block)
        evict_us = _mean_us(lambda number: _evict(policy, num_blocks + number))
        hit_us = _mean_us(lambda number: _hit(policy, blocks[number * 7919 % num_blocks], num_blocks + number))
    finally:
        gc.enable()
    figures = f"eviction {evict_us:.1f} us, hit {hit_us:.1f} us at {num_blocks:,} blocks (bound {BOUND_US:.0f} us)"
    if max(evict_us, hit_us) > BOUND_US:
        raise Violation(RULE, f"{figures}: a decision has to be O(1) or O(log n)")
    return figures


def _mean_us(decide: Callable[[int], None]) -> float:
    started_s = time.process_time()
    for number in range(_NUM_DECISIONS):
        decide(number)
        if number % 16 == 15 and time.process_time() - started_s > _MAX_S:
            break
    return (time.process_time() - started_s) * 1e6 / (number + 1)


def _evict(policy: EvictionPolicy, content: int) -> None:
    block = policy.evict()
    assert isinstance(block, Block)
    block.hash, block.hits, block.last_used_s = content, 0, content * 1e-3
    policy.on_insert(block)
    policy.add(block)


def _hit(policy: EvictionPolicy, block: Block, now: int) -> None:
    policy.remove(block)
    block.hits += 1
    block.last_used_s = now * 1e-3
    policy.on_hit(block)
    policy.add(block)
