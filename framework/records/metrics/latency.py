"""Latencies of one request, all in seconds. None where a latency is undefined."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from framework.interfaces.records import RequestRecord


def ttft_s(request: RequestRecord) -> float | None:
    """Time to first token, from the scheduled arrival."""
    return None if request.first_token_s is None else request.first_token_s - request.arrival_s


def e2e_s(request: RequestRecord) -> float:
    """Seconds from the scheduled arrival to the end."""
    return request.finish_s - request.arrival_s


def tpot_s(request: RequestRecord) -> float | None:
    """Time per output token after the first: (E2E - TTFT) / (output tokens - 1); undefined below two tokens."""
    first_s = ttft_s(request)
    if first_s is None or request.num_output_tokens < 2:
        return None
    return (e2e_s(request) - first_s) / (request.num_output_tokens - 1)


def itl_s(request: RequestRecord) -> NDArray[np.float64]:
    """Inter-token latencies: the gaps between tokens as they reached the host."""
    return np.diff(np.asarray(request.token_times_s, dtype=np.float64))


def queue_s(request: RequestRecord) -> float | None:
    """Seconds from the scheduled arrival until the request first ran."""
    return None if request.scheduled_s is None else request.scheduled_s - request.arrival_s
