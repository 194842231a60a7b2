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
        limit, memory, cached = self._num_shareable(request), request.memory, self._cached
        found, serials = memory.matched, memory.matched_serials
        while found and found[-1].serial != serials[-1]:
            found.pop()
            serials.pop()
        hashes, contents = memory.hashes, memory.contents
        parent = found[-1] if found else None
        for index in range(len(found), limit):
            if index >= len(hashes):
                self._extend_hashes(request)
            block = cached.get(hashes[index])
            if block is None or block.parent is not parent or block.content != contents[index]:
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
        while len(request.memory.hashes) < full:
            self._extend_hashes(request)
        return request.memory.hashes[:full]

    def _num_shareable(self, request: Request) -> int:
        memory = request.memory
        most = min(request.num_known, request.num_tokens - 1, memory.shareable_tokens, memory.readable_tokens)
        return most // self.block_size

    def admit(self, request: Request, max_tokens: int) -> int:
        """Match the prefix cache and allocate for up to `max_tokens` further tokens. Returns how many; 0 means that the
        blocks do not suffice and that nothing has changed."""
        cached = self.match(request)
        start = len(cached) * self.block_size
        num = min(request.num_pending - start, max_tokens)
        need = -(-(start + num) // self.block_size) - len(cached)
        free = self.num_free
        if need > free:
            return 0
        if need > free - len(cached):  # else there is no need to count those that are evictable now
            unheld = [block.ref for block in cached].count(0)
            if need > free - unheld:
                return 0
        if self._on_request is not None:
            self._on_request(request.id)
        now_s, on_hit = self.now_s, self._on_hit
        for block in cached:
            if block.ref == 0:
                self._hold(block)
            else:
                block.ref += 1
            block.hits += 1
            block.last_used_s = now_s
            if on_hit is not None:
                on_hit(block)
        counters = self.counters
        counters.hit_blocks += len(cached)
        memory = request.memory
        looks = self.prefix_caching and memory.readable_tokens > 0
        counters.lookup_blocks += request.num_known // self.block_size if looks else 0
        memory.matched.clear()
        memory.matched_serials.clear()
        blocks = memory.blocks
        assert not blocks
        assert request.num_computed == 0
        blocks.extend(cached)
        blocks += self._take(need)
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
        if need > 0:
            memory.blocks += self._take(need)
        memory.capacity_tokens = len(memory.blocks) * self.block_size
        return True

    def commit(self, request: Request) -> None:
        """Publish full blocks whose ids are known and whose KV a submitted step writes, or share those that hold the
        same. Steps run in order, so what is shared is written before any step that has it in its table."""
        memory, cached, on_insert = request.memory, self._cached, self._on_insert
        full = min(request.num_computed, request.num_known, memory.shareable_tokens) // self.block_size
        blocks, hashes, contents, category = memory.blocks, memory.hashes, memory.contents, request.category
        parent = blocks[memory.num_committed - 1] if memory.num_committed else None
        for index in range(memory.num_committed, full):
            if index >= len(hashes):
                self._extend_hashes(request)
            block, digest = blocks[index], hashes[index]
            twin = cached.get(digest)
            if twin is None:
                self._num_published += 1
                block.hash, block.content, block.depth, block.parent = digest, contents[index], index, parent
                block.category, block.serial = category, self._num_published
                if parent is not None:
                    parent.children += 1
                cached[digest] = block
                if on_insert is not None:
                    on_insert(block)
            elif twin.parent is not parent or twin.content != contents[index]:
                memory.commit_at_tokens = NEVER  # a hash collision: this request shares nothing from here on
                memory.num_committed = index
                return
            elif twin is not block:
                self._hold(twin)
                blocks[index] = twin
                self._drop_private(block)
                memory.num_sent_blocks = min(memory.num_sent_blocks, index)  # its next step is sent them again
            parent = blocks[index]
        memory.num_committed = full
        memory.commit_at_tokens = self._next_commit(memory)

    def release(self, request: Request) -> None:
        """Take back all blocks of a request, the deepest first so that children become evictable before parents."""
        memory, free, now_s, add, num_unheld = request.memory, self._free, self.now_s, self.policy.add, 0
        for block in reversed(memory.blocks):
            assert block.ref > 0, f"block {block.id} released twice"
            block.ref -= 1
            if block.ref:
                continue
            if block.hash is None:
                free.append(block)
                continue
            block.last_used_s = now_s
            num_unheld += 1
            if block.children == 0:
                add(block)
        self._num_unheld_cached += num_unheld
        memory.blocks.clear()
        request.num_computed = memory.num_committed = memory.capacity_tokens = memory.num_sent_blocks = 0

    def reset(self) -> None:
        """Empty the prefix cache and the counters; no request may hold a block."""
        assert all(block.ref == 0 for block in self.blocks)
        self._evict(self._num_unheld_cached, self._free)
        self.counters = CacheCounters()

    def _next_commit(self, memory: BlockTable) -> int:
        """Known and computed tokens at which the block after the committed ones can be offered."""
        tokens = (memory.num_committed + 1) * self.block_size
        return tokens if tokens <= memory.shareable_tokens else NEVER

    def _extend_hashes(self, request: Request) -> None:
        """Hash the next block of a request, or all blocks of its next key."""
        hashes, contents = request.memory.hashes, request.memory.contents
        index, size, keys = len(hashes), self.block_size, request.keys
        seed = hashes[-1] if hashes else 0
        if keys is None:
            content = request.token_ids[index * size : (index + 1) * size].tobytes()
            hashes.append(xxh3_64_intdigest(content, seed))
            contents.append(content)
            return
        # Python hashes tuples of integers alike in every process. The blocks of one key follow from it and its prefix.
        key, num_blocks = keys.content(index), max(1, keys.key_tokens // size)
        first = hash((seed, key))
        hashes.extend(range(first, first + num_blocks))
        contents.extend([key] * num_blocks)

    def _hold(self, block: Block) -> None:
        if block.ref == 0 and block.hash is not None:
            self._num_unheld_cached -= 1
            if block.children == 0:
                self.policy.remove(block)
        block.ref += 1

    def _drop_private(self, block: Block) -> None:
        """Give back a block that one request holds and that was not published."""
        assert block.ref == 1, f"block {block.id} is held {block.ref} times"
        assert block.hash is None, f"block {block.id} is published"
        block.ref = 0
        self._free.append(block)

    def _take(self, count: int) -> list[Block]:
        """Free blocks, the last one freed at the front, and then victims."""
        free = self._free
        if count <= len(free):
            taken = free[: -count - 1 : -1]
            del free[len(free) - count :]
        else:
            taken = free[::-1]
            free.clear()
            self._evict(count - len(taken), taken)
        for block in taken:
            block.ref = 1
        return taken

    def _evict(self, count: int, taken: list[Block]) -> None:
        """Append that many victims to `taken`."""
        cached, blocks, policy = self._cached, self.blocks, self.policy
        choose, add = policy.evict, policy.add
        for _ in range(count):
            block = choose()
            if type(block) is not Block or block.ref or block.children or (digest := block.hash) is None:
                raise self._no_victim(block)
            if blocks[block.id] is not block:
                raise self._no_victim(block)
            del cached[digest]
            parent = block.parent
            block.hash = block.parent = block.content = None
            block.hits = block.serial = 0
            taken.append(block)
            if parent is not None:
                parent.children -= 1
                if parent.children == 0 and parent.ref == 0:
                    add(parent)
        self._num_unheld_cached -= count
        self.counters.evictions += count

    def _no_victim(self, victim: CachedBlock) -> PluginError:
        return PluginError(
            f"eviction policy {type(self.policy).__name__} returned {victim!r} as a victim; the rule is: a cached "
            f"block that no request holds and that has no cached child, added and not yet removed",
            is_named=True,
        )
