"""Requests that repeat each other: each holds the blocks of its tokens and no more, shared where they are equal."""

from __future__ import annotations

import pytest

from framework.conformance.kit.invariants import check_invariants
from framework.interfaces.request import RequestSpec
from framework.registry import EVICTIONS, SCHEDULERS
from framework.registry.discovery import discover
from tests.engine.shadow import make_engine, params

discover()
PROMPT = tuple(range(40))
SIZE = 4


def serve(scheduler: str, num_requests: int, num_blocks: int, *, max_tokens: int = 24, overlap: int = 1):
    """The most blocks that were ever held, the outputs, and the engine, for equal requests at once."""
    engine = make_engine(
        SCHEDULERS.get(scheduler)(),
        EVICTIONS.get("lru")(),
        num_blocks=num_blocks,
        block_size=SIZE,
        max_num_seqs=8,
        max_num_batched_tokens=64,
        overlap=overlap,
        voices=dict.fromkeys(range(num_requests), 0),
    )
    for _ in range(num_requests):
        engine.add_request(RequestSpec(prompt_token_ids=PROMPT, params=params(max_tokens)))
    most, outputs = 0, {}
    while engine.has_work:
        for output in engine.step():
            outputs[output.request_id] = output.token_ids
        check_invariants(engine)
        for request in engine.queue.running:
            assert len(request.memory.blocks) == -(-request.num_computed // SIZE)
        most = max(most, num_blocks - engine.cache.num_free)
    return most, outputs, engine


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_repeated_requests_share_prompt_and_output(overlap: int) -> None:
    alone = -(-(40 + 24 - 1) // SIZE)
    most, outputs, engine = serve("chunked_prefill", 4, 200, overlap=overlap)
    assert set(map(tuple, outputs.values())) == {tuple(outputs[0])}
    assert most <= alone + 4 * 10  # while the prompts run, in blocks of their own
    assert engine.plan.num_preempted == 0
    more, *_ = serve("chunked_prefill", 1, 200, overlap=overlap)
    assert more == alone
    at_end = engine.cache.num_cached_unheld
    assert at_end == (40 + 24 - 1) // SIZE


def test_a_repetition_fits_where_the_first_does() -> None:
    """The second request finds the prompt cached, all but its last block, and computes that once more."""
    blocks = -(-(40 + 24) // SIZE)
    engine_blocks = blocks + 1
    for scheduler in ("chunked_prefill", "static_batch", "prefill_first"):
        most, outputs, engine = serve(scheduler, 1, engine_blocks)
        first = engine.add_request(RequestSpec(prompt_token_ids=PROMPT, params=params(24)))
        engine.executor.voices[first] = 0  # type: ignore[attr-defined]
        while engine.has_work:
            for output in engine.step():
                outputs[output.request_id] = output.token_ids
        assert outputs[first] == outputs[0]
        assert engine.plan.num_preempted == 0
        assert most <= blocks


@pytest.mark.parametrize("num_requests", [3, 24])
def test_static_batch_with_repeated_prompts_comes_to_its_end(num_requests: int) -> None:
    _, outputs, engine = serve("static_batch", num_requests, 33)
    assert len(outputs) == num_requests
    assert engine.plan.num_preempted == 0
