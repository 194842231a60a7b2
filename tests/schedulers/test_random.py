"""Random choices may go against every request, but not for ever."""

from __future__ import annotations

import pytest

from framework.conformance.kit.traces import Trace, TraceRequest
from tests.engine.traces import run_trace


@pytest.mark.parametrize("overlap", [0, 1])
def test_long_prompts_in_small_steps_end(overlap: int) -> None:
    """A prompt takes 90 steps of its own, in which about one of twelve loses what it computed."""
    prompts = [tuple((7 * number + 5 * i) % 9 for i in range(700)) for number in range(12)]
    trace = Trace(
        block_size=16,
        num_blocks=48,
        max_num_batched_tokens=8,
        max_num_seqs=32,
        prefix_caching=False,
        requests=tuple(TraceRequest(0.0, prompt, max_tokens=3, eos_after=4) for prompt in prompts),
    )
    assert len(run_trace(trace, scheduler="random", eviction="lru", overlap=overlap)) == 12
