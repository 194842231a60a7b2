"""Random traces, and running one of them with every check switched on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import strategies as st

from framework.discovery import discover
from framework.engine.output import RequestOutput
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS, SCHEDULERS
from tests.engine.adversary import Adversary
from tests.engine.shadow import EOS, check_invariants, make_engine, params, token_at

discover()


@dataclass(frozen=True)
class Trace:
    """Requests as (arrival_s, prompt, max_tokens, outputs until EOS), and a machine that is small enough to hurt."""

    block_size: int
    num_blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    prefix_caching: bool
    requests: tuple[tuple[float, tuple[int, ...], int, int], ...]


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    block_size = draw(st.sampled_from([1, 4, 16]))
    num_blocks = draw(st.integers(8, 48))
    capacity = block_size * num_blocks
    seed = draw(st.integers(0, 1 << 30))  # contents by seed: what shrinks well here is the number of requests
    rng = random.Random(seed)
    shared = [tuple(rng.randrange(9) for _ in range(rng.randint(1, max(2, capacity // 3)))) for _ in range(3)]
    requests = []
    for _ in range(draw(st.integers(1, 16))):
        prompt = rng.choice(shared) if rng.random() < 0.7 else ()
        prompt += tuple(rng.randrange(9) for _ in range(rng.randint(1, max(1, capacity // 4))))
        max_tokens = rng.randint(1, max(1, capacity // 4))
        requests.append((rng.random() * 0.2, prompt[: capacity - 1], max_tokens, rng.randint(1, max_tokens + 3)))
    return Trace(
        block_size=block_size,
        num_blocks=num_blocks,
        max_num_batched_tokens=draw(st.sampled_from([8, 64, 512])),
        max_num_seqs=draw(st.sampled_from([1, 2, 8, 32])),
        prefix_caching=draw(st.booleans()),
        requests=tuple(sorted(requests)),
    )


def all_schedulers() -> list[str]:
    return SCHEDULERS.names()


def all_evictions() -> list[str]:
    return EVICTIONS.names()


def build_scheduler(name: str, seed: int = 0) -> Scheduler:
    if name == "adversary":
        return Adversary(seed)
    return SCHEDULERS.get(name)()


def build_eviction(name: str) -> EvictionPolicy:
    return EVICTIONS.get(name)()


def run_trace(trace: Trace, *, scheduler: str, eviction: str, overlap: int, seed: int = 0) -> dict[int, RequestOutput]:
    """Serve the whole trace and assert that every invariant held and every request got exactly its tokens."""
    eos_after = {i: request[3] for i, request in enumerate(trace.requests)}
    engine = make_engine(
        build_scheduler(scheduler, seed),
        build_eviction(eviction),
        num_blocks=trace.num_blocks,
        block_size=trace.block_size,
        max_num_seqs=trace.max_num_seqs,
        max_num_batched_tokens=trace.max_num_batched_tokens,
        overlap=overlap,
        prefix_caching=trace.prefix_caching,
        eos_after=eos_after,
    )
    arrivals = list(trace.requests)
    done: dict[int, RequestOutput] = {}
    for _ in range(50_000):
        while arrivals and arrivals[0][0] <= engine.clock.now_s():
            _, prompt, max_tokens, _ = arrivals.pop(0)
            engine.add_request(prompt_token_ids=prompt, params=params(max_tokens))
        if engine.has_work:
            for output in engine.step():
                done[output.request_id] = output
            check_invariants(engine)
        elif arrivals:
            engine.clock.sleep_until(arrivals[0][0])
        else:
            break
    else:
        raise AssertionError("no progress")
    assert engine.cache.num_free == trace.num_blocks, "blocks leaked"
    assert len(done) == len(trace.requests)
    capacity = trace.num_blocks * trace.block_size
    for i, (_, prompt, max_tokens, until_eos) in enumerate(trace.requests):
        limit = min(max_tokens, capacity - len(prompt))
        expected = [token_at(i, len(prompt) + k) for k in range(limit)]
        if until_eos <= limit:
            expected[until_eos - 1 :] = [EOS]
        assert done[i].token_ids == expected, f"request {i}"
        assert done[i].finish_reason == ("stop" if until_eos <= limit else "length")
    engine.reset()
    check_invariants(engine)
    assert len(engine.cache._free) == trace.num_blocks
    return done
