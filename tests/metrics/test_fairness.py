"""Fair shares against divisions made by hand, and what they say of servers that are fair or not."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.interfaces.records import RequestRecord
from framework.records.analysis.metric_names import direction
from framework.records.metrics.fairness import fairness, max_min_shares
from framework.records.metrics.slo import Slo
from framework.records.metrics.summary import summarize


def request(client: str, arrival_s: float, scheduled_s: float | None, finish_s: float, **changes: Any) -> RequestRecord:
    """A prompt of 10 tokens, computed evenly over the time that it ran; its only output comes at the end."""
    values: dict[str, Any] = {
        "request_id": 0,
        "client": client,
        "arrival_s": arrival_s,
        "scheduled_s": scheduled_s,
        "first_token_s": finish_s,
        "finish_s": finish_s,
        "num_prompt_tokens": 10,
        "num_output_tokens": 0,
        "num_cached_tokens": 0,
        "num_preemptions": 0,
        "finish_reason": "length",
        "token_times_s": [],
    }
    return RequestRecord(**{**values, **changes})


@pytest.mark.parametrize(
    ("caps", "total", "shares"),
    [
        ([math.inf, math.inf], 6, [3, 3]),
        ([1, math.inf, math.inf], 7, [1, 3, 3]),
        ([4, 1, math.inf], 12, [4, 1, 7]),
        ([5, 2, 9], 9, [3.5, 2, 3.5]),  # below the sum of the caps: the small one is served in full
        ([2, 3], 5, [2, 3]),
    ],
)
def test_max_min_by_hand(caps: list[float], total: float, shares: list[float]) -> None:
    assert max_min_shares(np.array(caps, dtype=float), total) == pytest.approx(shares)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6), st.floats(0, 1))
def test_max_min_is_max_min(caps: list[float], part: float) -> None:
    total = part * sum(caps)
    shares = max_min_shares(np.array(caps), total)
    assert shares.sum() == pytest.approx(total)
    level = shares.max()
    for share, cap in zip(shares, caps, strict=True):
        assert share <= cap + 1e-9
        assert share == pytest.approx(cap) or share == pytest.approx(level)  # who is not served in full has the most


def serve(order: str) -> list[RequestRecord]:
    """One request a second; each letter names the client whose turn it is. All of them arrived at 0."""
    return [request(client, 0.0, float(second), second + 1.0) for second, client in enumerate(order)]


def test_turns_are_fair_over_their_period() -> None:
    metrics = fairness(serve("ababababab"), window_s=2.0)
    assert metrics == {"fairness_index": pytest.approx(1), "unfair_service_fraction": pytest.approx(0)}


def test_one_client_before_the_other() -> None:
    """In the first two windows b is backlogged and gets nothing, in the others a wants nothing any more."""
    metrics = fairness(serve("aaaabbbbbb"), window_s=2.0)
    # Fair in the windows 0 and 1: 10 each. In 2 and 3, all 20 to b; in 4 nobody waits. So a got 40 of 20, b 40 of 60;
    # 20 of 80 went beyond.
    assert metrics["unfair_service_fraction"] == pytest.approx(20 / 80)
    a, b = 40 / 20, 40 / 60
    assert metrics["fairness_index"] == pytest.approx((a + b) ** 2 / (2 * (a * a + b * b)))


def test_a_client_without_a_backlog_is_entitled_to_no_more_than_it_takes() -> None:
    small = [request("small", second, second, second + 0.2, num_prompt_tokens=1) for second in range(8)]
    metrics = fairness([*serve("aaaaaaaaaa"), *small])
    assert metrics["fairness_index"] == pytest.approx(1)
    assert metrics["unfair_service_fraction"] == pytest.approx(0)


def test_outputs_weigh_twice_and_count_when_they_are_delivered() -> None:
    talk = {"num_prompt_tokens": 0, "num_output_tokens": 4, "first_token_s": 0.5, "token_times_s": [0.5, 0.6, 1.5, 1.6]}
    small = request("small", 0.0, 0.0, 0.5, num_prompt_tokens=1)
    requests = [request("a", 0.0, 0.0, 2.0, **talk), request("b", 0.0, 2.0, 3.0), small]
    # Only window 0 is contended, since b waits until 2: a gets 2 * 2, small 1, b nothing; 2, 1 and 2 were fair.
    assert fairness(requests)["unfair_service_fraction"] == pytest.approx(2 / 5)


def test_quiet_weeks_cost_and_change_nothing() -> None:
    later_s = 60 * 86_400.0
    order = "aaaabbbbbb"
    later = [request(client, later_s, later_s + i, later_s + i + 1.0) for i, client in enumerate(order)]
    assert fairness([*serve(order), *later]) == pytest.approx(fairness(serve(order)))


def test_long_waits_cost_and_change_nothing() -> None:
    """A long queue: what its requests wait for is counted once, not once for each of them."""
    began_s = time.process_time()
    metrics = fairness([request("ab"[i % 2], 0.0, 50.0 * i, 50.0 * i + 1) for i in range(2000)])
    assert time.process_time() - began_s < 3  # a second where a request a window is one operation: 1e8 of these
    assert metrics["fairness_index"] == pytest.approx(1)


def test_undefined_without_competition() -> None:
    undefined = {"fairness_index": None, "unfair_service_fraction": None}
    assert fairness([]) == undefined
    assert fairness(serve("aaaa")) == undefined
    assert fairness([request("a", 0.0, 0.0, 1.0), request("b", 1.0, 1.0, 2.0)]) == undefined
    assert fairness([request(f"client {i}", 0.0, float(i), i + 1.0) for i in range(101)]) == undefined


def test_clients_have_metrics_of_their_own() -> None:
    requests = [request("a", 0.0, 0.0, 1.0), request("b", 0.0, 1.0, 2.0), request("b/c", 0.0, 2.0, 4.0)]
    metrics = summarize(requests, [], slo=Slo(ttft_s=2.0))
    assert [metrics[f"client/{name}/ttft_s/mean"] for name in ("a", "b", "b/c")] == [1, 2, 4]
    assert [metrics[f"client/{name}/goodput_requests_per_s"] for name in ("a", "b", "b/c")] == [1 / 4, 1 / 4, 0]
    assert summarize(requests, [])["client/a/goodput_requests_per_s"] is None
    assert direction("client/b/c/ttft_s/p99") == -1
    assert direction("client/a/goodput_requests_per_s") == direction("fairness_index") == 1
    many = [request(f"client {i}", 0.0, float(i), i + 1.0) for i in range(17)]
    assert not [name for name in summarize(many, []) if name.startswith("client/")]
    assert not [name for name in summarize(requests[:1], []) if name.startswith("client/")]
