"""Random traces over every scheduler, eviction policy and overlap depth, against a shadow KV memory.

How this was tried: `tests/engine/test_seeded_bugs.py` puts a list of bugs into the engine, one by one, and requires
that these traces notice each of them.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.traces import Trace, all_evictions, all_schedulers, run_trace, traces


@pytest.mark.parametrize("eviction", all_evictions())
@pytest.mark.parametrize("scheduler", all_schedulers())
@settings(max_examples=7, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trace=traces(), overlap=st.integers(0, 2), seed=st.integers(0, 1000))
def test_any_trace(scheduler: str, eviction: str, trace: Trace, overlap: int, seed: int) -> None:
    run_trace(trace, scheduler=scheduler, eviction=eviction, overlap=overlap, seed=seed)
