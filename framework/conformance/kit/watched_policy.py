"""An eviction policy under observation: everything that the cache asks of it is compared with its duties."""

from __future__ import annotations

from collections.abc import Sequence

from framework.conformance.kit.finding import Violation
from framework.interfaces.eviction import CachedBlock, EvictionPolicy, NeedsFuture

VICTIMS = "victims are evictable blocks, each given once"


class WatchedPolicy(EvictionPolicy):
    """Passes every call on to `policy` and keeps the set of blocks that it may choose from.

    Raises:
        Violation: from `evict`, when the choice is not in that set.
    """

    def __init__(self, policy: EvictionPolicy) -> None:
        self.policy = policy
        self.evictable: dict[int, CachedBlock] = {}
        self.victims: list[int] = []

    def add(self, block: CachedBlock) -> None:
        assert block.id not in self.evictable, f"the cache added block {block.id} twice"
        self.evictable[block.id] = block
        self.policy.add(block)

    def remove(self, block: CachedBlock) -> None:
        del self.evictable[block.id]
        self.policy.remove(block)

    def evict(self) -> CachedBlock:
        victim = self.policy.evict()
        block_id = getattr(victim, "id", None)
        if block_id is None or self.evictable.pop(block_id, None) is not victim:
            asked = f"decision {len(self.victims)}, with {len(self.evictable)} evictable blocks"
            what = f"block {block_id}, which was not added or is held again" if block_id is not None else repr(victim)
            raise Violation(VICTIMS, f"{type(self.policy).__name__} chose {what} ({asked})")
        self.victims.append(victim.id)
        return victim

    def on_insert(self, block: CachedBlock) -> None:
        self.policy.on_insert(block)

    def on_hit(self, block: CachedBlock) -> None:
        self.policy.on_hit(block)


class WatchedOracle(WatchedPolicy):
    """The same as `WatchedPolicy`, for a policy that has to be told the future."""

    def on_future(self, requests: Sequence[Sequence[int]]) -> None:
        assert isinstance(self.policy, NeedsFuture)
        self.policy.on_future(requests)

    def on_request(self, number: int) -> None:
        assert isinstance(self.policy, NeedsFuture)
        self.policy.on_request(number)


def watch(policy: EvictionPolicy) -> WatchedPolicy:
    """`policy` under observation."""
    return WatchedOracle(policy) if isinstance(policy, NeedsFuture) else WatchedPolicy(policy)
