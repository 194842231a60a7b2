"""Computes the flat metrics of a run from its records."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.metrics.fairness import fairness
from framework.records.metrics.latency import e2e_s, itl_s, queue_s, tpot_s, ttft_s
from framework.records.metrics.prediction import prediction_metrics
from framework.records.metrics.quality import ANSWERS, ATTENTION
from framework.records.metrics.slo import Slo, attainment

Metrics = dict[str, float | int | None]
COMPLETED = ("stop", "length")
MAX_CLIENT_COLUMNS = 16
"""With more clients than this, no client gets metrics of its own."""
PERCENTILES = (50.0, 90.0, 99.0)
"""The default of `metrics.percentiles`."""
_OF_A_CLIENT = re.compile(r"client/.*/(ttft_s/[^/]+|goodput_requests_per_s)")


def summarize(
    requests: Sequence[RequestRecord],
    steps: Sequence[StepRecord],
    *,
    slo: Slo | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    startup_s: float | None = None,
    peak_memory_gib: float | None = None,
    memory_bandwidth_utilization: float | None = None,
    model_flops_utilization: float | None = None,
) -> Metrics:
    """The metrics of a run; None (null in JSON) where a value is undefined, never NaN. The keys are always the same,
    but for those of single clients (`client/NAME/...`), which are there with 2 to `MAX_CLIENT_COLUMNS` of them.

    Times are in seconds. Latencies are those of requests that completed (`stop` or `length`); tokens and the duration,
    from the first arrival to the last finish, are those of every request that the engine accepted, aborted ones too.
    `goodput_requests_per_s` and `slo_attainment`, the share of all requests that completed and met every objective, are
    None unless an SLO is set or a request has an objective of its own. Each latency has `mean`, `std` (over the sample,
    as numpy does), `max`, `count` (how many values) and the `percentiles`, which interpolate linearly. Shares
    (`..._rate`, `..._fraction`, `..._utilization`, `..._attainment`) lie in [0, 1].
    """
    spread = functools.partial(_distribution, percentiles=percentiles)
    slo = slo or Slo()
    accepted = [r for r in requests if r.finish_reason != "rejected"]
    completed = [r for r in accepted if r.finish_reason in COMPLETED]
    failed = [r for r in accepted if r.finish_reason == "failed"]
    duration_s = max(r.finish_s for r in accepted) - min(r.arrival_s for r in accepted) if accepted else None
    output_tokens = sum(r.num_output_tokens for r in accepted)
    prompt_tokens = sum(r.num_prompt_tokens for r in accepted)
    admitted = [r for r in accepted if r.scheduled_s is not None]
    has_objective = slo.is_set_for(requests)
    num_met = sum(map(slo.met_by, completed))
    metrics: Metrics = {
        "duration_s": duration_s,
        "requests_completed": len(completed),
        "requests_rejected": len(requests) - len(accepted),
        "requests_failed": len(failed),
        "requests_aborted": len(accepted) - len(completed) - len(failed),
        "output_tokens": output_tokens,
        "prompt_tokens": prompt_tokens,
        "output_tokens_per_s": _ratio(output_tokens, duration_s),
        "total_tokens_per_s": _ratio(output_tokens + prompt_tokens, duration_s),
        "requests_per_s": _ratio(len(completed), duration_s),
        "goodput_requests_per_s": _ratio(num_met, duration_s) if has_objective else None,
        "slo_attainment": _ratio(num_met, len(requests)) if has_objective else None,
    }
    metrics |= attainment(requests, completed, slo)
    metrics |= spread("ttft_s", map(ttft_s, completed))
    metrics |= spread("tpot_s", map(tpot_s, completed))
    metrics |= spread("itl_s", np.concatenate([np.zeros(0), *map(itl_s, completed)]))
    metrics |= spread("e2e_s", map(e2e_s, completed))
    metrics |= spread("queue_s", map(queue_s, completed))
    metrics["prefix_cache_hit_rate"] = _ratio(
        sum(r.num_cached_tokens for r in admitted), sum(r.num_prompt_tokens for r in admitted)
    )
    metrics |= prediction_metrics(completed, spread)
    metrics |= fairness(accepted)
    metrics |= _client_metrics(completed, slo, duration_s if has_objective else None, spread)
    metrics |= _step_metrics(steps) | spread("plan_s", (s.plan_s for s in steps))
    metrics |= {
        "memory_bandwidth_utilization": memory_bandwidth_utilization,
        "model_flops_utilization": model_flops_utilization,
        "peak_memory_gib": peak_memory_gib,
        "startup_s": startup_s,
    }
    return metrics | dict.fromkeys((*ATTENTION, *ANSWERS))  # filled by who runs a model


def unknown_metric(name: str, percentiles: Sequence[float] = PERCENTILES) -> str | None:
    """Why no run has a metric of this name, with the nearest names and then all; None if it has."""
    known = list(summarize([], [], percentiles=percentiles))
    of_a_client = _OF_A_CLIENT.fullmatch(name)
    if name in known or (of_a_client and of_a_client[1] in known):
        return None
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    return f"no run has a metric of this name{meant}; there are {', '.join(sorted(known))}, and client/NAME/ttft_s/p99"


def _client_metrics(
    completed: Sequence[RequestRecord], slo: Slo, duration_s: float | None, spread: Callable[..., Metrics]
) -> Metrics:
    names = sorted({r.client for r in completed})
    if not 2 <= len(names) <= MAX_CLIENT_COLUMNS:
        return {}
    metrics: Metrics = {}
    for name in names:
        own = [r for r in completed if r.client == name]
        metrics |= spread(f"client/{name}/ttft_s", map(ttft_s, own))
        metrics[f"client/{name}/goodput_requests_per_s"] = _ratio(sum(map(slo.met_by, own)), duration_s)
    return metrics


def _step_metrics(steps: Sequence[StepRecord]) -> Metrics:
    padding = sum(s.num_padding_tokens for s in steps)
    computed = sum(s.num_prefill_tokens + s.num_decode_tokens for s in steps)
    metrics: Metrics = {
        "steps": len(steps),
        "preemptions": sum(s.preemptions for s in steps),
        "evictions": sum(s.evictions for s in steps),
        "block_hit_rate": _ratio(sum(s.cache_hit_blocks for s in steps), sum(s.cache_lookup_blocks for s in steps)),
        "padding_fraction": _ratio(padding, padding + computed),
        "kv_utilization/mean": _mean_kv_utilization(steps),
    }
    return metrics


def _mean_kv_utilization(steps: Sequence[StepRecord]) -> float | None:
    """Share of KV blocks held by requests, weighted by the time that each step added; idle time does not count."""
    weighted = busy_s = 0.0
    last_finish_s: dict[int, float] = {}
    for step in steps:
        # Overlapping steps of one engine share no time; those of two replicas are two times.
        step_s = step.finish_s - max(step.submit_s, last_finish_s.get(step.replica, 0.0))
        last_finish_s[step.replica] = step.finish_s
        total = step.blocks_used + step.blocks_cached + step.blocks_free
        weighted += step_s * step.blocks_used / total
        busy_s += step_s
    return _ratio(weighted, busy_s)


def _ratio(part: float, whole: float | None) -> float | None:
    """`part / whole`; None for no `whole`, or one below a clock's resolution (whole counts are at least 1)."""
    return part / whole if whole and whole >= 1e-9 else None


def _distribution(
    name: str, values: Iterable[float | None] | NDArray[np.float64], *, percentiles: Sequence[float]
) -> Metrics:
    if isinstance(values, np.ndarray):
        defined = values
    else:
        defined = np.array([value for value in values if value is not None], dtype=np.float64)
    names = ["mean", *(f"p{percent:g}" for percent in percentiles), "std", "max"]
    if not defined.size:
        return {**{f"{name}/{statistic}": None for statistic in names}, f"{name}/count": 0}
    found = [defined.mean(), *np.percentile(defined, percentiles), defined.std(), defined.max()]
    statistics = {f"{name}/{statistic}": float(value) for statistic, value in zip(names, found, strict=True)}
    return {**statistics, f"{name}/count": int(defined.size)}
