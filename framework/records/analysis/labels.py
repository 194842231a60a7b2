"""Names of metrics and keys in words and with units, as on the axis of a figure: `p99 TTFT (ms)`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from framework.records.analysis.metric_names import direction

_CLIENT = re.compile(r"client/(.*)/((?:ttft_s|goodput_requests_per_s).*)")
_METRICS: dict[str, tuple[str, str, float]] = {
    "ttft_s": ("TTFT", "ms", 1e3),
    "tpot_s": ("TPOT", "ms", 1e3),
    "itl_s": ("ITL", "ms", 1e3),
    "e2e_s": ("end-to-end latency", "s", 1),
    "queue_s": ("queueing time", "ms", 1e3),
    "plan_s": ("planning time", "µs", 1e6),
    "duration_s": ("duration", "s", 1),
    "startup_s": ("start-up", "s", 1),
    "output_tokens_per_s": ("output throughput", "tokens/s", 1),
    "total_tokens_per_s": ("total throughput", "tokens/s", 1),
    "requests_per_s": ("throughput", "requests/s", 1),
    "goodput_requests_per_s": ("goodput", "requests/s", 1),
    "slo_attainment": ("SLO attainment", "", 1),
    "prefix_cache_hit_rate": ("prefix cache hit rate", "", 1),
    "block_hit_rate": ("block hit rate", "", 1),
    "padding_fraction": ("padding", "share of tokens", 1),
    "kv_utilization": ("KV utilization", "", 1),
    "fairness_index": ("fairness (Jain's index)", "", 1),
    "unfair_service_fraction": ("service beyond fair shares", "", 1),
    "memory_bandwidth_utilization": ("memory bandwidth utilization", "", 1),
    "model_flops_utilization": ("model FLOPS utilization", "", 1),
    "peak_memory_gib": ("peak memory", "GiB", 1),
    "requests_completed": ("requests completed", "", 1),
    "requests_rejected": ("requests rejected", "", 1),
    "requests_aborted": ("requests aborted", "", 1),
    "perplexity": ("perplexity", "", 1),
    "perplexity_exact": ("perplexity under exact attention", "", 1),
    "kl_exact_nats": ("divergence from exact attention", "nats per token", 1),
    "answer_logprob": ("log-probability of answers", "nats per token", 1),
    "distinct_1": ("distinct tokens", "share of an answer", 1),
    "distinct_2": ("distinct pairs of tokens", "share of an answer", 1),
    "repetition_fraction": ("repeated runs of four tokens", "share of an answer", 1),
}
_KEYS = {
    "workload.rate_per_s": "request rate (requests/s)",
    "workload.max_concurrency": "requests at once",
    "workload.num_requests": "number of requests",
    "workload.time_scale": "scale of the trace's times",
    "engine.num_blocks": "KV blocks",
    "engine.block_size": "tokens per KV block",
    "engine.max_num_seqs": "requests in a batch, at most",
    "engine.max_num_batched_tokens": "tokens in a batch, at most",
    "executor.replicas": "replicas",
    "executor.tp": "tensor-parallel ranks",
    "executor.memory_gib": "device memory (GiB)",
}


@dataclass(frozen=True, slots=True)
class Label:
    """The text of an axis for a metric."""

    text: str
    scale: float
    """The factor that brings a value to the unit that `text` names."""
    way: str
    """`less is better`, `more is better`, or nothing."""

    @property
    def title(self) -> str:
        return f"{self.text}, {self.way}" if self.way else self.text


def label(metric: str) -> Label:
    """The label of a metric. An unknown metric goes by its own name."""
    way = {1: "more is better", -1: "less is better", 0: ""}[direction(metric)]
    of_client = _CLIENT.fullmatch(metric)
    base, _, statistic = (of_client[2] if of_client else metric).partition("/")
    if base not in _METRICS:
        return Label(metric, 1, way)
    name, unit, scale = _METRICS[base]
    if statistic == "count":
        name, unit, scale = f"values of {name}", "", 1
    elif statistic:
        name = f"{statistic} {name}"
    if of_client:
        name = f"{name} of {of_client[1]}"
    return Label(f"{name} ({unit})" if unit else name, scale, way)


def key_label(key: str) -> str:
    """The label of a configuration key."""
    return _KEYS.get(key, key)
