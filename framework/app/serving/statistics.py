"""Metrics of a server: Prometheus names as vLLM has them where they mean the same, and quantiles for the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from framework.app.serving.answers import Choice

KEPT = 1000
"""The number of requests that the quantiles of the status page cover."""
_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
_SLOW_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0)
_GAUGES = {
    "running": ("vllm:num_requests_running", "Requests that hold KV blocks."),
    "waiting": ("vllm:num_requests_waiting", "Requests that wait to run."),
    "kv_usage": ("vllm:kv_cache_usage_perc", "KV blocks that requests hold; 1 is all."),
}
_COUNTERS = {
    "prompt_tokens": ("vllm:prompt_tokens", "Prompt tokens of requests that ended."),
    "output_tokens": ("vllm:generation_tokens", "Output tokens of requests that ended."),
    "cached_tokens": ("servelab:cached_prompt_tokens", "Prompt tokens that the prefix cache held."),
    "preemptions": ("vllm:num_preemptions", "Preemptions of requests that ended."),
    "evictions": ("servelab:evictions", "KV blocks that were evicted."),
    "refused": ("servelab:requests_refused", "Requests that the engine refused."),
}


class Statistics:
    """What the HTTP process measures itself: latencies as its clients see them, the way through sockets included."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, model_name: str) -> None:
        self._model = model_name
        self._stats: dict[str, Any] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)  # type: ignore[arg-type]
        self._ttft = self._histogram(
            "vllm:time_to_first_token_seconds", "From the request to its first token.", _FAST_S
        )
        self._tpot = self._histogram("vllm:time_per_output_token_seconds", "Mean time per token after it.", _FAST_S)
        self._e2e = self._histogram("vllm:e2e_request_latency_seconds", "From the request to its end.", _SLOW_S)
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=KEPT) for name in ("ttft_s", "tpot_s", "e2e_s")}

    def note(self, choice: Choice, started_s: float) -> None:
        """A choice has ended, or its client has gone."""
        if choice.first_s is None or choice.finish_reason not in ("stop", "length"):
            return
        values = {"ttft_s": choice.first_s - started_s, "e2e_s": choice.last_s - started_s}
        if choice.num_output > 1:
            values["tpot_s"] = (choice.last_s - choice.first_s) / (choice.num_output - 1)
        for name, value in values.items():
            self._recent[name].append(value)
            {"ttft_s": self._ttft, "tpot_s": self._tpot, "e2e_s": self._e2e}[name].observe(value)

    def quantiles(self) -> dict[str, dict[str, float]]:
        """p50, p90 and p99 of the last requests, in seconds."""
        levels = (50, 90, 99)
        return {
            name: {f"p{level}": float(value) for level, value in zip(levels, np.percentile(kept, levels), strict=True)}
            for name, kept in self._recent.items()
            if kept
        }

    def exposition(self, stats: dict[str, Any]) -> bytes:
        """The text that Prometheus scrapes."""
        self._stats = stats
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For the registry: what the engine counts."""
        for key, (name, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["model_name"])
            gauge.add_metric([self._model], self._stats.get(key, 0))
            yield gauge
        for key, (name, text) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["model_name"])
            counter.add_metric([self._model], self._stats.get(key, 0))
            yield counter
        ended = CounterMetricFamily(
            "vllm:request_success", "Requests that ended, by reason.", labels=["model_name", "finished_reason"]
        )
        for reason, count in self._stats.get("ended", {}).items():
            ended.add_metric([self._model, reason], count)
        yield ended

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Any:
        family = Histogram(name, text, ["model_name"], registry=self._registry, buckets=buckets)
        return family.labels(self._model)
