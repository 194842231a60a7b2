"""Whether clients got their fair shares of an engine's service while they competed for it.

In an open loop every client is served in full in the end, so totals say nothing, and equal waits are not fair either:
who asks for more than a share has to wait longer. So service is compared with max-min fair shares, window by window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from framework.interfaces.records import RequestRecord

MAX_CLIENTS = 100
"""With more clients, such as one per session, shares are too small to mean anything."""
PROMPT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0
"""The service that a token counts for, as in "Fairness in Serving Large Language Models" (OSDI'24)."""
Floats = NDArray[np.float64]


def fairness(requests: Sequence[RequestRecord], window_s: float = 1.0) -> dict[str, float | None]:
    """Two views of the windows in which at least one client is backlogged, that is, has a request waiting at the
    beginning of the window and one at its end.

    There the service that was given is divided again by max-min fairness: a backlogged client can take any amount, the
    others take at most what they got.

    - `fairness_index`: Jain's index, (sum x)^2 / (n sum x^2), of the clients' x = service / fair share; 1 when all got
      the same part of their fair shares, 1/n when one client got everything.
    - `unfair_service_fraction`: service beyond fair shares over all service in these windows; 0 when fair.

    A prompt counts evenly from when the request first ran to its first token, an output token when it was delivered.
    Both are None with fewer than two clients, with more than MAX_CLIENTS, or if no client was ever backlogged.
    """
    ran = [r for r in requests if r.scheduled_s is not None]
    clients = {name: i for i, name in enumerate(dict.fromkeys(r.client for r in ran))}
    undefined: dict[str, float | None] = {"fairness_index": None, "unfair_service_fraction": None}
    if not 2 <= len(clients) <= MAX_CLIENTS:
        return undefined
    origin_s = min(r.arrival_s for r in ran)
    backlogged_at = _backlogged(ran, clients, origin_s, window_s)
    contended = np.unique(np.concatenate(backlogged_at))
    given = np.zeros((len(clients), len(contended)))
    for request in ran:
        assert request.scheduled_s is not None
        ran_in = [(request.scheduled_s - origin_s) // window_s, (request.finish_s - origin_s) // window_s + 1]
        first, last = np.searchsorted(contended, ran_in)
        begin_s: Floats = origin_s + contended[first:last].astype(np.float64) * window_s
        end_s: Floats = begin_s + window_s
        served = np.subtract(_served_until(request, end_s), _served_until(request, begin_s))
        given[clients[request.client], first:last] += served
    something = given.sum(axis=0) > 0
    contended, given = contended[something], given[:, something]
    if not contended.size:
        return undefined
    backlogged = np.stack([np.isin(contended, windows, assume_unique=True) for windows in backlogged_at])
    caps = np.where(backlogged, np.inf, given)
    fair = np.stack([max_min_shares(caps[:, w], float(given[:, w].sum())) for w in range(len(contended))], axis=1)
    beyond = np.clip(given - fair, 0, None).sum() / given.sum()
    competed = fair.sum(axis=1) > 0
    x = given.sum(axis=1)[competed] / fair.sum(axis=1)[competed]
    return {
        "fairness_index": float(x.sum() ** 2 / (len(x) * (x**2).sum())),
        "unfair_service_fraction": float(beyond),
    }


def _backlogged(
    ran: Sequence[RequestRecord], clients: dict[str, int], origin_s: float, window_s: float
) -> list[NDArray[np.int64]]:
    """For each client, the ascending numbers of the windows in which it has a request waiting at both ends."""
    waits: list[list[tuple[int, int]]] = [[] for _ in clients]  # at the beginnings of windows first to end - 1
    for request in ran:
        assert request.scheduled_s is not None
        first, end = (math.ceil((t - origin_s) / window_s) for t in (request.arrival_s, request.scheduled_s))
        if first < end:
            waits[clients[request.client]].append((first, end))
    return [_inside(own) for own in waits]


def _inside(spans: list[tuple[int, int]]) -> NDArray[np.int64]:
    """The numbers n such that n and n + 1 lie in spans, each from its first number to before its end."""
    inside = [np.zeros(0, dtype=np.int64)]
    begin = end = -1
    for first, last in sorted(spans):  # each number once, however many requests wait for however long
        if first > end:
            inside.append(np.arange(begin, end - 1))
            begin = first
        end = max(end, last)
    return np.concatenate([*inside, np.arange(begin, end - 1)])


def max_min_shares(caps: Floats, total: float) -> Floats:
    """Divide `total` max-min fairly: no client gets more than its cap, and none could get more unless a client with no
    more than it got less. `total` is at most the sum of the caps.
    """
    shares = np.zeros_like(caps)
    left, waiting = total, len(caps)
    for i in np.argsort(caps, kind="stable"):
        shares[i] = min(caps[i], left / waiting)
        left -= shares[i]
        waiting -= 1
    return shares


def _served_until(request: RequestRecord, times_s: Floats) -> Floats:
    """Service that `request` had got by each of `times_s`."""
    assert request.scheduled_s is not None
    first_s = request.first_token_s if request.first_token_s is not None else request.finish_s
    prefill_s = max(first_s - request.scheduled_s, 1e-9)
    prompt = np.clip((times_s - request.scheduled_s) / prefill_s, 0, 1) * request.num_prompt_tokens
    return PROMPT_WEIGHT * prompt + OUTPUT_WEIGHT * np.searchsorted(np.asarray(request.token_times_s), times_s, "right")
