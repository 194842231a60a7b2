"""What must hold for an engine's blocks, references and queues between any two calls."""

from __future__ import annotations

from framework.engine.block import Block
from framework.engine.engine import Engine
from framework.engine.kv_cache import KVCache
from framework.engine.request import Request


def check_invariants(engine: Engine) -> None:
    """Compare everything that the engine keeps count of with a count made from scratch; O(blocks).

    Raises:
        AssertionError: the engine is broken, or a plugin wrote to what it may only read.
    """
    cache, queue = engine.cache, engine.queue
    live: list[Request] = [*queue.running, *queue.waiting]
    assert len({request.id for request in live}) == len(live), "a request is queued twice"
    for request in live:
        assert request.running == (request in queue.running), f"request {request.id} is in the wrong queue"
        assert request.running or not (request.memory.blocks or request.num_computed)
        assert len(request.memory.blocks) * cache.block_size == request.memory.capacity_tokens >= request.num_computed
    _check_references(cache, live)
    _check_tree(cache)
    unheld = [block for block in cache.blocks if block.hash is not None and not block.ref]
    assert len(unheld) == cache.num_cached_unheld
    assert len(cache._free) == sum(block.hash is None and not block.ref for block in cache.blocks), "a block is lost"
    assert len({id(block) for block in cache._free}) == len(cache._free), "a block is free twice"


def _check_references(cache: KVCache, live: list[Request]) -> None:
    refs = dict.fromkeys(range(len(cache.blocks)), 0)
    for request in live:
        for block in request.memory.blocks:
            refs[block.id] += 1
    for block in cache.blocks:
        assert block.ref == refs[block.id], f"block {block.id}: {block.ref} references, {refs[block.id]} holders"


def _check_tree(cache: KVCache) -> None:
    children = dict.fromkeys(range(len(cache.blocks)), 0)
    for digest, block in cache._cached.items():
        assert block.hash == digest
        if block.parent is not None:
            children[block.parent.id] += 1
            assert block.parent.hash is not None, "a cached block lost its parent"
            assert not block.ref or block.parent.ref, "a held child without a held parent"
    for block in cache.blocks:
        assert block.children == children[block.id], f"block {block.id}: wrong number of cached children"
        assert block.hash is None or _is_cached(cache, block), f"block {block.id}: not the one cached under its hash"


def _is_cached(cache: KVCache, block: Block) -> bool:
    return block.hash is not None and cache._cached.get(block.hash) is block
