"""The checks find what is wrong with an eviction policy and name the rule."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from framework.conformance import Budget, Finding
from framework.conformance.checks import eviction as eviction_checks
from framework.conformance.checks import eviction_cost
from framework.conformance.kit import watched_policy
from framework.conformance.run import run_checks
from framework.interfaces.eviction import CachedBlock, EvictionPolicy, ScorePolicy

BUDGET = Budget(num_examples=25, search_s=3.0, shrink_s=1.5, num_cost_blocks=20_000)


class OldestFirst(EvictionPolicy):
    """Right, in O(1)."""

    def __init__(self) -> None:
        self.blocks: dict[int, CachedBlock] = {}

    def add(self, block: CachedBlock) -> None:
        self.blocks[block.id] = block

    def remove(self, block: CachedBlock) -> None:
        del self.blocks[block.id]

    def evict(self) -> CachedBlock:
        return self.blocks.pop(next(iter(self.blocks)))


class IgnoresRemove(OldestFirst):
    def remove(self, block: CachedBlock) -> None:
        pass


class KeepsItsVictim(OldestFirst):
    def evict(self) -> CachedBlock:
        return next(iter(self.blocks.values()))


class LosesBlocks(OldestFirst):
    def add(self, block: CachedBlock) -> None:
        if block.depth != 2:
            super().add(block)

    def remove(self, block: CachedBlock) -> None:
        self.blocks.pop(block.id, None)


class Unseeded(OldestFirst):
    def evict(self) -> CachedBlock:
        return self.blocks.pop(random.choice(list(self.blocks)))


class ScansAll(OldestFirst):
    def evict(self) -> CachedBlock:
        return self.blocks.pop(min(self.blocks, key=lambda number: self.blocks[number].last_used_s))


class ReturnsNothing(OldestFirst):
    def evict(self) -> CachedBlock:
        super().evict()
        return None  # type: ignore[return-value]


class Frequent(ScorePolicy):
    def score(self, block: CachedBlock) -> float:
        return block.hits


def finding(build: Callable[[], EvictionPolicy], rule: str) -> Finding:
    checks = eviction_checks.checks(OmegaConf.create({"name": "mine"}), build, BUDGET)
    return next(iter(run_checks(check for check in checks if check.rule == rule)))


@pytest.mark.parametrize(
    ("policy", "rule", "says"),
    [
        (IgnoresRemove, watched_policy.VICTIMS, "IgnoresRemove chose block"),
        (KeepsItsVictim, watched_policy.VICTIMS, "KeepsItsVictim chose block"),
        (ReturnsNothing, watched_policy.VICTIMS, "ReturnsNothing chose None"),
        (LosesBlocks, eviction_checks.BALANCE, "evictable blocks"),
        (Unseeded, eviction_checks.SAME_VICTIMS, "differs between two runs"),
        (ScansAll, eviction_cost.RULE, r"O\(1\) or O\(log n\)"),
    ],
)
def test_what_is_wrong_is_named(policy: type[EvictionPolicy], rule: str, says: str) -> None:
    found = finding(policy, rule)
    assert found.status == "fails"
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.detail)


@pytest.mark.parametrize("policy", [OldestFirst, Frequent])
@pytest.mark.parametrize(
    "rule", [watched_policy.VICTIMS, eviction_checks.BALANCE, eviction_checks.SAME_VICTIMS, eviction_cost.RULE]
)
def test_nothing_is_wrong(policy: type[EvictionPolicy], rule: str) -> None:
    assert finding(policy, rule).status == "holds"


def test_the_case_is_small() -> None:
    """A lost block takes a chain of three blocks."""
    detail = finding(LosesBlocks, eviction_checks.BALANCE).detail
    assert detail.count("request ") == 1
    assert "[0, 1, 2]" in detail
