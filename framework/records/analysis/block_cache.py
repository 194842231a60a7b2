"""A prefix cache without an engine: drives an eviction policy over a stream of block keys and counts what it saves.

It calls the policy exactly as `framework.engine.kv_cache` does, one request at a time. Two readings of a workload:

- `replay_flat`: every block stands alone, as in a page cache. What the papers and simulators of page caches measure.
- `BlockCache`, `replay_chains`: a request asks for a chain of blocks, finds the longest cached prefix of it, holds
  the whole chain for an instant, and only leaves can be evicted. What an engine does with its requests in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from framework.engine.block import Block
from framework.interfaces.errors import PluginError
from framework.interfaces.eviction import CachedBlock, EvictionPolicy, NeedsFuture


@dataclass(slots=True)
class BlockStats:
    """Counts of blocks."""

    lookups: int = 0
    hits: int = 0
    """Blocks that were found in the cache."""
    prefix_hits: int = 0
    """Found, as were all blocks before it in its chain: those that save work. In `BlockCache`, all hits are such."""
    evictions: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits per lookup; 0 if nothing was looked up."""
        return self.hits / self.lookups if self.lookups else 0.0

    @property
    def prefix_hit_rate(self) -> float:
        """Prefix hits per lookup; 0 if nothing was looked up."""
        return self.prefix_hits / self.lookups if self.lookups else 0.0


class BlockCache:
    """A cache of `num_blocks` blocks, asked for chains of keys.

    A key stands for its block and all blocks before it, as a hash chained over the tokens does: it always comes after
    the same key.

    Raises:
        ValueError: `num_blocks` is below 1.
    """

    def __init__(self, policy: EvictionPolicy, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"num_blocks={num_blocks} must be at least 1")
        self.policy, self.num_blocks = policy, num_blocks
        self.stats = BlockStats()
        self.cached: dict[int, Block] = {}
        self._num_made = 0

    def access(self, chain: Sequence[int], now_s: float) -> int:
        """Find, take, publish and release the blocks of one request. Returns how many of them were found.

        Raises:
            ValueError: the chain is longer than the cache, or a key came after another one before.
            PluginError: the policy chose a block that is not evictable.
        """
        if len(chain) > self.num_blocks:
            raise ValueError(f"a chain of {len(chain)} blocks does not fit into {self.num_blocks}; raise num_blocks")
        held: list[Block] = []
        parent = None
        for key in chain:
            block = self.cached.get(key)
            if block is None:
                break
            if block.parent is not parent:
                raise ValueError(f"block key {key} came after another key before; chain the keys over the whole prefix")
            if block.children == 0:
                self.policy.remove(block)
            block.ref, block.last_used_s = 1, now_s
            block.hits += 1
            self.policy.on_hit(block)
            held.append(block)
            parent = block
        num_hits = len(held)
        held += [self._take() for _ in range(num_hits, len(chain))]
        for depth in range(num_hits, len(chain)):
            self._publish(held[depth], chain[depth], depth, held[depth - 1] if depth else None)
        for block in reversed(held):  # as the engine does, the deepest first
            block.ref, block.last_used_s = 0, now_s
            if block.children == 0:
                self.policy.add(block)
        self.stats.lookups += len(chain)
        self.stats.hits += num_hits
        self.stats.prefix_hits += num_hits
        return num_hits

    def _publish(self, block: Block, key: int, depth: int, parent: Block | None) -> None:
        if key in self.cached:
            raise ValueError(f"block key {key} came after another key before; chain the keys over the whole prefix")
        block.hash, block.depth, block.parent = key, depth, parent
        if parent is not None:
            parent.children += 1
        self.cached[key] = block
        self.policy.on_insert(block)

    def _take(self) -> Block:
        if self._num_made < self.num_blocks:
            block = Block(self._num_made, ref=1)
            self._num_made += 1
            return block
        victim = self.policy.evict()
        block = _checked_victim(self.policy, self.cached, victim)
        if block.ref or block.children:
            raise _not_evictable(self.policy, victim)
        self.stats.evictions += 1
        parent = block.parent
        block.hash, block.parent, block.hits, block.ref = None, None, 0, 1
        if parent is not None:
            parent.children -= 1
            if parent.ref == 0 and parent.children == 0:
                self.policy.add(parent)
        return block


def replay_chains(policy: EvictionPolicy, chains: Sequence[Sequence[int]], num_blocks: int) -> BlockStats:
    """Ask for `chains` one after the other, one second apart. Raises as `BlockCache` does."""
    on_request = _tell_future(policy, chains)
    cache = BlockCache(policy, num_blocks)
    for now_s, chain in enumerate(chains):
        if on_request is not None:
            on_request(now_s)
        cache.access(chain, now_s)
    return cache.stats


def replay_flat(policy: EvictionPolicy, chains: Sequence[Sequence[int]], num_blocks: int) -> BlockStats:
    """Ask for every key of every chain on its own, one second apart, in a loop that costs little beside the policy.

    Raises:
        ValueError: `num_blocks` is below 1.
        PluginError: the policy chose a block that is not cached.
    """
    on_request = _tell_future(policy, [[key] for chain in chains for key in chain])
    cached = BlockCache(policy, num_blocks).cached
    add, remove, evict, on_insert, on_hit = policy.add, policy.remove, policy.evict, policy.on_insert, policy.on_hit
    now_s = num_hits = num_prefix_hits = num_evictions = 0
    for chain in chains:
        unbroken = True
        for key in chain:
            if on_request is not None:
                on_request(now_s)
            now_s += 1
            block = cached.get(key)
            if block is not None:
                num_hits += 1
                num_prefix_hits += unbroken
                remove(block)
                block.hits += 1
                block.last_used_s = now_s
                on_hit(block)
            else:
                unbroken = False
                if len(cached) < num_blocks:
                    block = Block(len(cached))
                else:
                    block = _checked_victim(policy, cached, evict())
                    block.hits = 0
                    num_evictions += 1
                block.hash = key
                cached[key] = block
                on_insert(block)
                block.last_used_s = now_s
            add(block)
    return BlockStats(lookups=now_s, hits=num_hits, prefix_hits=num_prefix_hits, evictions=num_evictions)


def _tell_future(policy: EvictionPolicy, requests: Sequence[Sequence[int]]) -> Callable[[int], None] | None:
    """The function to call with the number of each request as it begins; None for a policy without foresight."""
    if not isinstance(policy, NeedsFuture):
        return None
    policy.on_future(requests)
    return policy.on_request


def _checked_victim(policy: EvictionPolicy, cached: dict[int, Block], victim: CachedBlock) -> Block:
    block = None if victim is None or victim.hash is None else cached.pop(victim.hash, None)
    if block is None or block is not victim:
        raise _not_evictable(policy, victim)
    return block


def _not_evictable(policy: EvictionPolicy, victim: CachedBlock) -> PluginError:
    return PluginError(
        f"eviction policy {type(policy).__name__} returned {victim!r} as a victim; the rule is: a cached block that no "
        f"request holds and that has no cached child, added and not yet removed"
    )
