"""Owner of all KV blocks: reference counts, the prefix cache, and eviction through a policy.

A cached block is found by a hash chained over the tokens from the start of the sequence (as in vLLM's automatic prefix
caching) and then compared token by token and parent by parent. A prompt without tokens has keys in their place.
Two requests that compute the same block at once do so in blocks of their own. The one that would publish it later takes
the other's block into its table and gives its own back. A request therefore holds one block per `block_size` tokens.
The cached blocks in a table are a path of the tree: a held child implies a held parent, and the evictable blocks are
exactly the leaves that no request holds. `num_free` is O(1).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from framework.engine.block import Block
from framework.engine.block_table import EVERYTHING, BlockTable
from framework.engine.request import Request
from framework.interfaces.errors import PluginError
from framework.interfaces.eviction import CachedBlock, EvictionPolicy, NeedsFuture
from framework.interfaces.prompt_keys import Content

NEVER = EVERYTHING + 1


@dataclass(slots=True)
class CacheCounters:
    """Counts of events since start or `KVCache.reset`."""

    hit_blocks: int = 0
    lookup_blocks: int = 0
    evictions: int = 0


class KVCache:
    """Hands blocks to requests and takes them back. Schedulers reach it only through the plan."""

    def __init__(
        self, num_blocks: int, block_size: int, policy: EvictionPolicy, *, prefix_caching: bool = True
    ) -> None:
        self.block_size, self.prefix_caching = block_size, prefix_caching
        self.blocks = [Block(i) for i in range(num_blocks)]
        self.policy = policy
        self.now_s = 0.0
        self.counters = CacheCounters()
        self._free = self.blocks[::-1]
        self._cached: dict[int, Block] = {}
        self._num_unheld_cached = self._num_published = 0
        # Optional hooks that a policy leaves alone are not called.
        self._on_insert = policy.on_insert if type(policy).on_insert is not EvictionPolicy.on_insert else None
        self._on_hit = policy.on_hit if type(policy).on_hit is not EvictionPolicy.on_hit else None
        self._on_request = policy.on_request if isinstance(policy, NeedsFuture) else None

    @property
    def num_free(self) -> int:
        """How many blocks can be handed out: the free ones and the evictable ones."""
        return len(self._free) + self._num_unheld_cached

    @property
    def num_cached_unheld(self) -> int:
        return self._num_unheld_cached

    def match(self, request: Request) -> list[Block]:
        """The longest cached prefix of a request, leaving at least one token to compute. Changes nothing.

        A request that waits is matched in every step, so what it found is kept with it: a block that still has its
        serial was not evicted since, nor were its ancestors, which can only go after it.
        """
        if not self.prefix_caching:
            return []
        limit = self._num_shareable(request)
        found, serials = request.memory.matched, request.memory.matched_serials
        while found and found[-1].serial != serials[-1]:
            found.pop()
            serials.pop()
        parent = found[-1] if found else None
        for index in range(len(found), limit):
            block = self._lookup(request, index, parent)
            if block is None:
                break
            found.append(block)
            serials.append(block.serial)
            parent = block
        return found[:limit]

    @property
    def cached_hashes(self) -> Collection[int]:
        """Of all cached blocks, as they are at any time."""
        return self._cached.keys()

    def prompt_path(self, request: Request) -> list[int]:
        """The hashes of the blocks that a new request will look for, cached or not. The call changes nothing."""
        full = self._num_shareable(request) if self.prefix_caching else 0
        return [self._hash(request, index) for index in range(full)]

    def _num_shareable(self, request: Request) -> int:
        return min(request.num_known, request.num_tokens - 1, request.memory.shareable_tokens) // self.block_size

    def admit(self, request: Request, max_tokens: int) -> int:
        """Match the prefix cache and allocate for up to `max_tokens` further tokens. Returns how many; 0 means that the
        blocks do not suffice and that nothing has changed."""
        cached = self.match(request)
        start = len(cached) * self.block_size
        num = min(request.num_pending - start, max_tokens)
        need = -(-(start + num) // self.block_size) - len(cached)
        unheld = sum(block.ref == 0 for block in cached)
        if need > self.num_free - unheld:
            return 0
        if self._on_request is not None:
            self._on_request(request.id)
        for block in cached:
            self._hold(block)
            block.hits += 1
            block.last_used_s = self.now_s
            if self._on_hit is not None:
                self._on_hit(block)
        counters = self.counters
        counters.hit_blocks += len(cached)
        counters.lookup_blocks += request.num_known // self.block_size if self.prefix_caching else 0
        memory = request.memory
        memory.matched.clear()
        memory.matched_serials.clear()
        blocks = memory.blocks
        assert not blocks
        assert request.num_computed == 0
        blocks.extend(cached)
        blocks.extend(self._take() for _ in range(need))
        memory.capacity_tokens = len(blocks) * self.block_size
        request.num_computed, memory.num_committed = start, len(cached)
        memory.commit_at_tokens = self._next_commit(memory) if self.prefix_caching else NEVER
        return num

    def grow(self, request: Request, num_tokens: int) -> bool:
        """Make room for the first `num_tokens` tokens of a running request, or change nothing and return False."""
        memory = request.memory
        need = -(-num_tokens // self.block_size) - len(memory.blocks)
        if need > self.num_free:
            return False
        memory.blocks.extend(self._take() for _ in range(need))
        memory.capacity_tokens = len(memory.blocks) * self.block_size
        return True

    def commit(self, request: Request) -> None:
        """Publish full blocks whose ids are known and whose KV a submitted step writes, or share those that hold the
        same. Steps run in order, so what is shared is written before any step that has it in its table."""
        memory = request.memory
        full = min(request.num_computed, request.num_known, memory.shareable_tokens) // self.block_size
        blocks = memory.blocks
        for index in range(memory.num_committed, full):
            block, parent = blocks[index], blocks[index - 1] if index else None
            digest = self._hash(request, index)
            twin = self._cached.get(digest)
            if twin is None:
                block.category = request.category
                self._publish(block, digest, self._content(request, index), index, parent)
            elif not self._same(twin, request, index, parent):
                memory.commit_at_tokens = NEVER  # a hash collision: this request shares nothing from here on
                memory.num_committed = index
                return
            elif twin is not block:
                self._hold(twin)
                blocks[index] = twin
                self._drop(block)
                memory.num_sent_blocks = min(memory.num_sent_blocks, index)  # its next step is sent them again
        memory.num_committed = full
        memory.commit_at_tokens = self._next_commit(memory)

    def release(self, request: Request) -> None:
        """Take back all blocks of a request, the deepest first so that children become evictable before parents."""
        memory = request.memory
        for block in reversed(memory.blocks):
            self._drop(block)
        memory.blocks.clear()
        request.num_computed = memory.num_committed = memory.capacity_tokens = memory.num_sent_blocks = 0

    def reset(self) -> None:
        """Empty the prefix cache and the counters; no request may hold a block."""
        assert all(block.ref == 0 for block in self.blocks)
        while self._num_unheld_cached:
            self._free.append(self._evict())
        self.counters = CacheCounters()

    def _lookup(self, request: Request, index: int, parent: Block | None) -> Block | None:
        block = self._cached.get(self._hash(request, index))
        return block if block is not None and self._same(block, request, index, parent) else None

    def _same(self, block: Block, request: Request, index: int, parent: Block | None) -> bool:
        return block.parent is parent and block.content == self._content(request, index)

    def _next_commit(self, memory: BlockTable) -> int:
        """Known and computed tokens at which the block after the committed ones can be offered."""
        tokens = (memory.num_committed + 1) * self.block_size
        return tokens if tokens <= memory.shareable_tokens else NEVER

    def _content(self, request: Request, index: int) -> Content:
        if request.keys is not None:
            return request.keys.content(index)
        return request.token_ids[index * self.block_size : (index + 1) * self.block_size].tobytes()

    def _hash(self, request: Request, index: int) -> int:
        hashes = request.memory.hashes
        while len(hashes) <= index:
            seed = hashes[-1] if hashes else 0
            content = self._content(request, len(hashes))
            # Python hashes tuples of integers alike in every process.
            hashes.append(xxh3_64_intdigest(content, seed) if isinstance(content, bytes) else hash((seed, content)))
        return hashes[index]

    def _publish(self, block: Block, digest: int, content: Content, depth: int, parent: Block | None) -> None:
        self._num_published += 1
        block.hash, block.content, block.depth, block.parent = digest, content, depth, parent
        block.serial = self._num_published
        if parent is not None:
            parent.children += 1
        self._cached[digest] = block
        if self._on_insert is not None:
            self._on_insert(block)

    def _hold(self, block: Block) -> None:
        if block.ref == 0 and block.hash is not None:
            self._num_unheld_cached -= 1
            if block.children == 0:
                self.policy.remove(block)
        block.ref += 1

    def _drop(self, block: Block) -> None:
        assert block.ref > 0, f"block {block.id} released twice"
        block.ref -= 1
        if block.ref:
            return
        if block.hash is None:
            self._free.append(block)
            return
        block.last_used_s = self.now_s
        self._num_unheld_cached += 1
        if block.children == 0:
            self.policy.add(block)

    def _take(self) -> Block:
        block = self._free.pop() if self._free else self._evict()
        block.ref = 1
        return block

    def _evict(self) -> Block:
        block = self._checked_victim(self.policy.evict())
        self.counters.evictions += 1
        self._num_unheld_cached -= 1
        assert block.hash is not None
        del self._cached[block.hash]
        block.serial = 0
        parent = block.parent
        block.hash, block.parent, block.content, block.hits = None, None, None, 0
        if parent is not None:
            parent.children -= 1
            if parent.ref == 0 and parent.children == 0:
                self.policy.add(parent)
        return block

    def _checked_victim(self, victim: CachedBlock) -> Block:
        block = self.blocks[victim.id] if isinstance(victim, Block) else None
        if block is None or block is not victim or block.ref or block.children or block.hash is None:
            raise PluginError(
                f"eviction policy {type(self.policy).__name__} returned {victim!r} as a victim; the rule is: a cached "
                f"block that no request holds and that has no cached child, added and not yet removed",
                is_named=True,
            )
        return block
