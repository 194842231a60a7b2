"""Metrics against numbers worked out by hand, and properties that hold for any records."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.metrics.slo import Slo
from framework.records.metrics.summary import summarize, unknown_metric

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")


def request(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": 0,
        "client": "",
        "arrival_s": 1.0,
        "scheduled_s": 1.5,
        "first_token_s": 3.0,
        "finish_s": 7.0,
        "num_prompt_tokens": 10,
        "num_output_tokens": 5,
        "num_cached_tokens": 4,
        "num_preemptions": 0,
        "finish_reason": "stop",
        "token_times_s": [3.0, 4.0, 4.5, 6.0, 7.0],
    }
    return RequestRecord(**{**values, **changes})


def step(**changes: Any) -> StepRecord:
    values: dict[str, Any] = {
        "step": 0,
        "submit_s": 0.0,
        "finish_s": 1.0,
        "plan_s": 0.001,
        "run_s": 0.9,
        "num_rows": 2,
        "num_prefill_tokens": 10,
        "num_decode_tokens": 1,
        "num_padding_tokens": 0,
        "graph_key": "eager",
        "num_running": 2,
        "num_waiting": 0,
        "blocks_used": 5,
        "blocks_cached": 5,
        "blocks_free": 10,
        "evictions": 0,
        "preemptions": 0,
        "cache_hit_blocks": 0,
        "cache_lookup_blocks": 0,
    }
    return StepRecord(**{**values, **changes})


def test_one_request_by_hand() -> None:
    metrics = summarize([request()], [])
    assert metrics["ttft_s/mean"] == 2.0  # from the scheduled arrival, not from when it first ran
    assert metrics["tpot_s/mean"] == 1.0  # (6 - 2) / (5 - 1)
    assert metrics["itl_s/mean"] == 1.0
    assert metrics["itl_s/p50"] == 1.0
    assert metrics["itl_s/p99"] == pytest.approx(1.0 + 0.5 * 0.97)  # gaps 0.5, 1, 1, 1.5, linear interpolation
    assert metrics["e2e_s/mean"] == 6.0
    assert metrics["queue_s/mean"] == 0.5
    assert metrics["duration_s"] == 6.0
    assert metrics["output_tokens_per_s"] == 5 / 6
    assert metrics["total_tokens_per_s"] == 15 / 6
    assert metrics["requests_per_s"] == 1 / 6
    assert metrics["prefix_cache_hit_rate"] == 0.4


def test_which_requests_count_where() -> None:
    requests = [
        request(),
        request(arrival_s=0.0, finish_s=10.0, finish_reason="abort", num_output_tokens=2, num_cached_tokens=0),
        request(arrival_s=0.0, scheduled_s=None, first_token_s=None, finish_s=0.1, finish_reason="rejected"),
        request(arrival_s=2.0, first_token_s=3.0, finish_s=3.0, num_output_tokens=1, token_times_s=[3.0]),
    ]
    metrics = summarize(requests, [])
    assert (metrics["requests_completed"], metrics["requests_rejected"], metrics["requests_aborted"]) == (2, 1, 1)
    assert metrics["duration_s"] == 10.0
    assert metrics["output_tokens"] == 8
    assert metrics["prompt_tokens"] == 30
    assert metrics["requests_per_s"] == 0.2
    assert metrics["ttft_s/mean"] == 1.5
    assert metrics["tpot_s/mean"] == 1.0  # undefined for the one-token request
    assert metrics["prefix_cache_hit_rate"] == 8 / 30


def test_every_metric_of_a_run_is_known_before_one() -> None:
    requests = [request(client="a/b"), request(client="c")]
    metrics = summarize(requests, [step()], slo=Slo(ttft_s=1.0))
    assert "client/a/b/ttft_s/p99" in metrics
    assert [name for name in metrics if unknown_metric(name)] == []
    assert unknown_metric("client/ttft_s/p99") is not None
    assert "did you mean ttft_s/p99" in str(unknown_metric("ttft_p99"))


def test_goodput_needs_every_objective() -> None:
    requests = [request(), request(finish_s=9.0), request(num_output_tokens=1, finish_s=3.0)]
    assert summarize(requests, [])["goodput_requests_per_s"] is None

    def goodput(**limits: float) -> Any:
        return summarize(requests, [], slo=Slo(**limits))["goodput_requests_per_s"]

    assert goodput(ttft_s=2.0) == 3 / 8
    assert goodput(ttft_s=1.9) == 0
    assert goodput(ttft_s=2.0, tpot_s=1.0) == 2 / 8  # the single token has no TPOT to miss
    assert goodput(e2e_s=5.0) == 1 / 8
    with pytest.raises(ValueError, match=r"slo\.tpot_s=0"):
        Slo(tpot_s=0)


def test_goodput_counts_deadlines_of_requests() -> None:
    requests = [request(deadline_s=3.0), request(deadline_s=2.9), request()]
    assert summarize(requests, [])["goodput_requests_per_s"] == 2 / 6


def test_steps_by_hand() -> None:
    steps = [
        step(num_padding_tokens=3, evictions=2, cache_hit_blocks=1, cache_lookup_blocks=4),
        # submitted while the first one ran, then idle until 5
        step(submit_s=0.5, finish_s=4.0, blocks_used=20, blocks_cached=0, blocks_free=0, preemptions=1),
        step(submit_s=5.0, finish_s=6.0, blocks_used=0, blocks_cached=20, blocks_free=0, cache_lookup_blocks=4),
    ]
    metrics = summarize([], steps)
    assert metrics["steps"] == 3
    assert metrics["evictions"] == 2
    assert metrics["preemptions"] == 1
    assert metrics["block_hit_rate"] == 1 / 8
    assert metrics["padding_fraction"] == 3 / 36
    assert metrics["kv_utilization/mean"] == pytest.approx((1 * 0.25 + 3 * 1.0 + 1 * 0.0) / 5)


def test_steps_of_replicas_share_no_time() -> None:
    steps = [
        step(finish_s=2.0, blocks_used=5, blocks_cached=0, blocks_free=5),
        step(submit_s=1.0, finish_s=7.0, blocks_used=10, blocks_cached=0, blocks_free=0, replica=1),
        step(submit_s=1.0, finish_s=4.0, blocks_used=0, blocks_cached=0, blocks_free=10),
    ]
    # replica 0: 2 s at a half and 2 s at nothing, replica 1: 6 s at all
    assert summarize([], steps)["kv_utilization/mean"] == pytest.approx((2 * 0.5 + 2 * 0.0 + 6 * 1.0) / 10)


def test_nothing_ran() -> None:
    metrics = summarize([], [], startup_s=1.5)
    assert metrics["duration_s"] is None
    assert metrics["output_tokens_per_s"] is None
    assert metrics["ttft_s/p99"] is None
    assert metrics["startup_s"] == 1.5
    assert metrics["output_tokens"] == 0
    assert list(metrics) == list(summarize([request()], [step()]))


times = st.floats(0, 1e4, allow_nan=False)


@st.composite
def any_request(draw: st.DrawFn) -> RequestRecord:
    arrival_s, scheduled_s, *token_times_s = sorted(draw(st.lists(times, min_size=3, max_size=9)))
    reason = draw(st.sampled_from(["stop", "length", "abort", "rejected"]))
    ran = reason != "rejected"
    prompt = draw(st.integers(1, 50))
    return request(
        arrival_s=arrival_s,
        scheduled_s=scheduled_s if ran else None,
        first_token_s=token_times_s[0] if ran else None,
        finish_s=token_times_s[-1],
        num_prompt_tokens=prompt,
        num_cached_tokens=draw(st.integers(0, prompt - 1)) if ran else 0,
        num_output_tokens=len(token_times_s) if ran else 0,
        token_times_s=token_times_s if ran else [],
        finish_reason=reason,
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(any_request(), max_size=8))
def test_any_records(requests: list[RequestRecord]) -> None:
    metrics = summarize(requests, [step()], slo=Slo(ttft_s=1.0))
    json.dumps(metrics, allow_nan=False)
    assert all(type(value) in (int, float, type(None)) for value in metrics.values())
    for name in LATENCIES:
        values = [metrics[f"{name}/{q}"] for q in ("p50", "p90", "p99")]
        if values[0] is not None:
            assert values == sorted(values)  # type: ignore[type-var]
            assert values[0] >= 0
    completed = [r for r in requests if r.finish_reason in ("stop", "length")]
    if completed and metrics["requests_per_s"] is not None:
        mean_ttft_s = math.fsum(r.first_token_s - r.arrival_s for r in completed) / len(completed)  # type: ignore[operator]
        assert metrics["ttft_s/mean"] == pytest.approx(mean_ttft_s, abs=1e-9)
        assert metrics["goodput_requests_per_s"] <= metrics["requests_per_s"]  # type: ignore[operator]
