"""Does the property test notice real bugs? Each is one edit of the engine's source, and must be caught."""

from __future__ import annotations

import importlib
import inspect
import types

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from framework.conformance.kit import shadow
from framework.engine import engine as engine_module
from tests.engine.traces import Trace, run_trace, traces

BUGS = {
    "a block is published before its KV is computed": (
        "kv_cache",
        "full = min(request.num_computed, request.num_known, memory.shareable_tokens) // self.block_size",
        "full = min(memory.capacity_tokens, request.num_known) // self.block_size",
    ),
    "blocks are published in add, not when the plan is sealed": (
        "plan",
        "        self.tokens_left -= num\n        return Verdict.OK",
        "        self.tokens_left -= num\n        request.num_computed += num\n        self._cache.commit(request)\n"
        "        request.num_computed -= num\n        return Verdict.OK",
    ),
    "the shared twin of a private block is not held": (
        "kv_cache",
        "                self._hold(twin)\n                blocks[index] = twin",
        "                blocks[index] = twin",
    ),
    "the twin that a request shares is not sent": (
        "kv_cache",
        "memory.num_sent_blocks = min(memory.num_sent_blocks, index)",
        "pass",
    ),
    "the private block stays in the table beside its twin": (
        "kv_cache",
        "                blocks[index] = twin\n                self._drop_private(block)\n",
        "                memory.blocks.insert(0, twin)\n",
    ),
    "a preempted request runs again while its last row is in flight": ("plan", "if request.num_inflight:", "if False:"),
    "the whole prompt comes from the cache, leaving nothing to compute": (
        "kv_cache",
        "most = min(request.num_known, request.num_tokens - 1, memory.shareable_tokens, memory.readable_tokens)",
        "most = request.num_known",
    ),
    "a preempted request keeps its computed count": (
        "kv_cache",
        "request.num_computed = memory.num_committed = memory.capacity_tokens",
        "memory.num_committed = memory.capacity_tokens",
    ),
    "an evicted block keeps its entry in the table": ("kv_cache", "            del cached[digest]\n", ""),
    "an evicted block keeps its stale hash": (
        "kv_cache",
        "block.hash = block.parent = block.content = None",
        "block.parent = block.content = None",
    ),
    "the parent of an evicted leaf never becomes evictable": (
        "kv_cache",
        "if parent.children == 0 and parent.ref == 0:",
        "if False:",
    ),
    "a preemption does not give the token budget back": (
        "plan",
        "self.tokens_left += self.counts.pop(index)",
        "self.counts.pop(index)",
    ),
    "the row in flight of an ended request is applied": (
        "engine",
        "            if request.finish_reason is not None:\n                continue",
        "            if False:\n                continue",
    ),
    "the hash ignores the parent and so does the comparison": (
        "kv_cache",
        "seed = hashes[-1] if hashes else 0",
        "seed = 0",
        "block.parent is not parent or block.content",
        "block.content",
        "twin.parent is not parent or twin.content",
        "twin.content",
    ),
    "a hit takes no reference": (
        "kv_cache",
        "                self._hold(block)\n            else:\n                block.ref += 1\n            block.hits",
        "                pass\n            block.hits",
    ),
    "a hit on an evictable block is not told to the policy": (
        "kv_cache",
        "            if block.children == 0:\n                self.policy.remove(block)\n        block.ref += 1",
        "        block.ref += 1",
    ),
    "a block is lost at release": (
        "kv_cache",
        "        memory.blocks.clear()\n",
        "        memory.blocks.clear() or self._free and self._free.pop()\n",
    ),
    "the slot of a preempted request is not given back": ("plan", "            self.slots.give(request.slot)\n", ""),
    "blocks already matched count as free": (
        "kv_cache",
        "if need > free - unheld:",
        "if need > free:",
    ),
    "blocks known to the executor are not sent again after a preemption": (
        "kv_cache",
        " = memory.capacity_tokens = memory.num_sent_blocks = 0",
        " = memory.capacity_tokens = 0",
    ),
}


def mutated(name: str, *edits: str) -> types.ModuleType:
    original = importlib.import_module(f"framework.engine.{name}")
    source = inspect.getsource(original)
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert source.count(old) == 1, f"{source.count(old)} places for {old!r}; adapt the bug to the code"
        source = source.replace(old, new)
    module = types.ModuleType(original.__name__)
    exec(compile(source, f"<{name} with a bug>", "exec"), module.__dict__)  # noqa: S102
    return module


@settings(
    max_examples=500,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(trace=traces(), seed=st.integers(0, 1000), scheduler=st.sampled_from(["chunked_prefill", "random"]))
def serve(trace: Trace, seed: int, scheduler: str) -> None:
    for overlap in (0, 1, 2):
        run_trace(trace, scheduler=scheduler, eviction="lru", overlap=overlap, seed=seed)


def test_nothing_is_noticed_without_a_bug() -> None:
    serve()


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *edits = BUGS[bug]
    module = mutated(name, *edits)
    if name == "engine":
        monkeypatch.setattr(shadow, "Engine", module.Engine)
    else:
        cls = {"kv_cache": "KVCache", "plan": "Plan"}[name]
        monkeypatch.setattr(engine_module, cls, getattr(module, cls))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever check sees it first
        serve()
