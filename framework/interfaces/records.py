"""The two rows that the engine reports. Every metric is computed from them. Times are seconds since start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from framework.interfaces.request import RequestSpec


@dataclass(slots=True, kw_only=True)
class StepRecord:
    """One executed step. Events (`evictions`, `preemptions`, `cache_*`) are counted from when the step before was
    planned, including events of plans that were dropped."""

    step: int
    submit_s: float
    finish_s: float
    plan_s: float
    """Host time spent planning the step."""
    run_s: float
    """Time that the device spent on the step."""
    num_rows: int
    num_prefill_tokens: int
    num_decode_tokens: int
    num_padding_tokens: int
    graph_key: str
    num_running: int
    num_waiting: int
    blocks_used: int
    """Blocks that requests hold."""
    blocks_cached: int
    """Evictable blocks: they are cached, and no request holds them."""
    blocks_free: int
    evictions: int
    preemptions: int
    cache_hit_blocks: int
    cache_lookup_blocks: int
    replica: int = 0
    """The engine of the fleet that ran the step."""


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request, from its arrival to its end. If it was rejected or has failed, `error` says why."""

    request_id: int
    client: str
    arrival_s: float
    scheduled_s: float | None
    """When the request first ran."""
    first_token_s: float | None
    finish_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    """Prompt tokens that the prefix cache held when the request was first admitted."""
    num_preemptions: int
    finish_reason: str
    """stop (EOS, stop token or stop string), length (`max_tokens`, the model's limit, or the true length that its
    workload states), abort, rejected or failed."""
    error: str = ""
    category: str = ""
    deadline_s: float | None = None
    token_times_s: Sequence[float] = field(default_factory=list)
    """When each output token reached the host."""
    replica: int = 0
    """The engine of the fleet that served the request."""
    session: str = ""
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    e2e_slo_s: float | None = None
    weight: float = 1.0
    predicted_tokens: float | None = None
    """The mean that the predictor expected at its arrival; None with `predictor=none`."""
    predicted_p50: float | None = None
    predicted_p90: float | None = None
    """Its quantiles."""


def stated(spec: RequestSpec) -> dict[str, Any]:
    """What a record takes over from the request: the fields of `RequestRecord` that a `RequestSpec` has too."""
    return {name: getattr(spec, name) for name in _STATED}


_MEASURED = ("arrival_s", "num_prompt_tokens")
_STATED = tuple(
    one.name
    for one in fields(RequestRecord)
    if one.name not in _MEASURED and one.name in {stated.name for stated in fields(RequestSpec)}
)
