"""Bytes and operations counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from framework.app.llm import LLM
from framework.execution import build
from framework.interfaces.records import RequestRecord, StepRecord
from framework.models.config import ModelConfig
from framework.records.metrics.utilization import DevicePeaks, ModelCosts, needed_bytes, needed_flops, utilization

COSTS = ModelCosts(weight_bytes=1000, kv_bytes_per_token=10, flops_per_token=100, attention_flops_per_token_pair=1)


def request(prompt: int, output: int, cached: int) -> RequestRecord:
    times: dict[str, Any] = {"arrival_s": 0.0, "scheduled_s": 0.0, "first_token_s": 1.0, "finish_s": 2.0}
    counts = {"num_prompt_tokens": prompt, "num_output_tokens": output, "num_cached_tokens": cached}
    return RequestRecord(request_id=0, client="", num_preemptions=0, finish_reason="length", **times, **counts)


def step(submit_s: float, finish_s: float) -> StepRecord:
    names = [name for name in StepRecord.__slots__ if name not in ("submit_s", "finish_s", "graph_key")]
    return StepRecord(submit_s=submit_s, finish_s=finish_s, graph_key="", **dict.fromkeys(names, 0))


def test_bytes() -> None:
    # Three outputs: positions 4 and 5 are decoded, reading 5 and 6 tokens; six are written.
    assert needed_bytes(COSTS, [request(4, 3, 0)], [step(0, 1), step(1, 2)]) == 2 * 1000 + (5 + 6 + 6) * 10
    assert needed_bytes(COSTS, [request(4, 3, 2)], []) == (5 + 6 + 4) * 10
    assert needed_bytes(COSTS, [request(4, 0, 0)], []) == 4 * 10


def test_flops() -> None:
    assert needed_flops(COSTS, [request(4, 3, 0)]) == 6 * 100 + (1 + 2 + 3 + 4 + 5 + 6)
    assert needed_flops(COSTS, [request(4, 3, 2)]) == 4 * 100 + (3 + 4 + 5 + 6)


def test_shares_of_the_peaks() -> None:
    peaks = DevicePeaks(bytes_per_s=10_000.0, flops_per_s=10_000.0)
    bandwidth, flops = utilization(COSTS, peaks, [request(4, 1, 0)], [step(1.0, 1.5), step(1.5, 3.0)])
    assert bandwidth == pytest.approx((2000 + 40) / 2 / 10_000)
    assert flops == pytest.approx((400 + 10) / 2 / 10_000)
    assert utilization(COSTS, peaks, [], []) == (None, None)


@pytest.mark.parametrize("window", [None, 8])
def test_windows_are_not_counted(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    peaks = DevicePeaks(bytes_per_s=1.0, flops_per_s=1.0)
    monkeypatch.setattr(build, "measure_peaks", lambda device, dtype: peaks)
    windows = lambda config, length: () if window is None else (window,) * config.num_layers  # noqa: E731
    monkeypatch.setattr(ModelConfig, "windows_within", windows)
    with LLM("tiny", device="cpu", max_model_len=32) as llm:
        assert llm._built.peaks == (peaks if window is None else None)
