"""A run against time: equal bins, every replica, nothing short lost; held against slow oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.over_time import REQUEST_COLUMNS, STEP_COLUMNS, Series, columns, over_time
from framework.records.tracking.series import condense, point
from tests.tracking.cells import request, step


def a_step(submit_s: float, finish_s: float, replica: int = 0, **values: Any) -> StepRecord:
    made = {**{name: getattr(step(0), name) for name in StepRecord.__slots__}, "blocks_used": 4, "blocks_free": 6}
    made |= {"submit_s": submit_s, "finish_s": finish_s, "run_s": finish_s - submit_s, "replica": replica, **values}
    return StepRecord(**made)


def a_request(arrival_s: float, finish_s: float, replica: int = 0) -> RequestRecord:
    made = {name: getattr(request(0), name) for name in RequestRecord.__slots__}
    return RequestRecord(**{**made, "arrival_s": arrival_s, "finish_s": finish_s, "replica": replica})


def binned(steps: list[StepRecord], requests: list[RequestRecord], num_bins: int) -> Series:
    return over_time(columns(steps, STEP_COLUMNS), columns(requests, REQUEST_COLUMNS), num_bins, (0.0, None))


def test_a_short_queue_between_far_apart_steps_is_not_lost() -> None:
    """A burst at 20 s whose queue lives for 0.3 s of 100."""
    steps = [a_step(i * 10, i * 10 + 0.1, num_running=1, num_waiting=0) for i in range(11)]
    burst = [a_step(20.1 + i / 10, 20.2 + i / 10, num_running=1, num_waiting=3 - i) for i in range(4)]
    steps = sorted([*steps, *burst], key=lambda one: one.submit_s)
    requests = [a_request(one.submit_s, one.finish_s) for one in steps]
    series = binned(steps, requests, 10)
    assert np.diff(series.edges_s) == pytest.approx(100.1 / 10)
    assert series.states["num_waiting"].high.tolist() == [0, 0, 3, *[0] * 7]  # 20.1 s is in the third bin of 10.01 s
    points = condense(steps, requests, 10)
    assert [p["time/waiting_max"] for p in points] == [0, 0, 3, *[0] * 7]
    assert points[5]["time/running"] == pytest.approx(0.11 / 10.01)  # idle but for parts of two steps


def test_four_replicas_are_summed_and_each_is_there() -> None:
    steps = [
        a_step(i / 10 + r / 100, (i + 1) / 10 + r / 100, r, num_running=50 + r) for i in range(20) for r in range(4)
    ]
    requests = [a_request(0, 3, r) for r in range(4)]
    middle = condense(steps, requests, 10)[5]
    assert middle["time/running"] == pytest.approx(50 + 51 + 52 + 53)
    assert [middle[f"replica/{r}/running"] for r in range(4)] == pytest.approx([50, 51, 52, 53])
    assert middle["time/kv_utilization"] == middle["replica/0/kv_utilization"] == pytest.approx(0.4)
    live = point([one for one in steps if 0.5 <= one.submit_s < 1.0])
    assert live["time/running_max"] == 206


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_sums_means_and_extremes_equal_a_fine_sampling(data: st.DataObject) -> None:
    """Times are whole tenths, so that a sample in the middle of every tenth sees each value for what it lasts."""
    steps, requests = [], []
    for replica in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 5))
        for _ in range(data.draw(st.integers(1, 6))):
            took, gap = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([0, 0, 3, 9]))
            state = {name: data.draw(st.integers(0, 4)) for name in ("num_running", "num_waiting", "blocks_used")}
            tokens = {"num_prefill_tokens": data.draw(st.integers(0, 50)), "num_decode_tokens": 2}
            own = a_step(at / 10, (at + took) / 10, replica, **state, **tokens)
            own.blocks_free = 10 - own.blocks_used - own.blocks_cached
            steps.append(own)
            requests.append(a_request(own.submit_s, own.finish_s, replica))  # idle in every gap
            at += took + gap
    num_bins = data.draw(st.sampled_from([1, 2, 5]))
    end = round(max(one.finish_s for one in steps) * 10)
    end += -end % num_bins
    series = over_time(columns(steps, STEP_COLUMNS), columns(requests, REQUEST_COLUMNS), num_bins, (0.0, end / 10))
    for name in ("num_running", "num_waiting", "blocks_used"):
        samples = [
            sum(getattr(s, name) for s in steps if s.submit_s <= (i + 0.5) / 10 < s.finish_s) for i in range(end)
        ]
        bins = np.array(samples, dtype=float).reshape(num_bins, -1)
        assert series.states[name].mean == pytest.approx(bins.mean(axis=1))
        assert series.states[name].low.tolist() == bins.min(axis=1).tolist()
        assert series.states[name].high.tolist() == bins.max(axis=1).tolist()
    width_s = np.diff(series.edges_s)
    assert (series.prefill_tokens_per_s * width_s).sum() == pytest.approx(sum(s.num_prefill_tokens for s in steps))
    assert (series.decode_tokens_per_s * width_s).sum() == pytest.approx(2 * len(steps))


def test_a_run_of_one_step_that_takes_no_time() -> None:
    (only,) = condense([a_step(0.0, 0.0, num_prefill_tokens=7)], [], 200)
    assert only["time/steps"] == 1
    assert only["time/s"] > 0
    assert condense([], [], 200) == []
