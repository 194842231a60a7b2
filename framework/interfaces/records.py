"""The two rows that the engine reports and everything else is computed from. Times are seconds since start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class StepRecord:
    """One executed step. Counts of events (`evictions`, `preemptions`, `cache_*`) are those since the step before was
    planned, plans that came to nothing included."""

    step: int
    submit_s: float
    finish_s: float
    plan_s: float
    """Host time spent planning it."""
    run_s: float
    """Device time."""
    num_rows: int
    num_prefill_tokens: int
    num_decode_tokens: int
    num_padding_tokens: int
    graph_key: str
    num_running: int
    num_waiting: int
    blocks_used: int
    """Held by requests."""
    blocks_cached: int
    """Evictable: cached and held by nobody."""
    blocks_free: int
    evictions: int
    preemptions: int
    cache_hit_blocks: int
    cache_lookup_blocks: int
    replica: int = 0
    """Which engine of a fleet."""


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request, from arrival to end. One that was rejected or has failed says why in `error`."""

    request_id: int
    client: str
    arrival_s: float
    scheduled_s: float | None
    """When it first ran."""
    first_token_s: float | None
    finish_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    """Prompt tokens that the prefix cache held when it was first admitted."""
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
    """Which engine of a fleet served it."""
