"""A hash collision in the prefix cache must cost a hit, never serve a wrong block."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.engine import kv_cache
from tests.engine.traces import Trace, run_trace, traces


@pytest.mark.parametrize("num_hashes", [1, 3, 16])
@settings(max_examples=25, deadline=None)
@given(trace=traces(), seed=st.integers(0, 1000))
def test_colliding_hashes(num_hashes: int, trace: Trace, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "xxh3_64_intdigest", lambda data, seed: hash((data, seed)) % num_hashes)
        run_trace(trace, scheduler="random", eviction="lru", overlap=1, seed=seed)
