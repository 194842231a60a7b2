"""A run against time: what its steps report, in equal bins, for all replicas together and for each of them.

A state (requests running and waiting, blocks held and cached) holds from the step that reported it until the next one
of the same replica, and is nothing while the replica has no request. Bins hold its mean over time and its extremes, so
that nothing short is lost. Tokens are spread over the time that their step took on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framework.interfaces.records import RequestRecord, StepRecord

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray]
STATES = ("num_running", "num_waiting", "blocks_used", "blocks_cached")
_GONE_WHEN_IDLE = ("num_running", "num_waiting", "blocks_used")
STEP_COLUMNS = (
    *("submit_s", "finish_s", "run_s", "plan_s", "num_rows", "num_prefill_tokens", "num_decode_tokens"),
    *("num_padding_tokens", "num_running", "num_waiting", "blocks_used", "blocks_cached", "blocks_free", "evictions"),
    *("preemptions", "cache_hit_blocks", "cache_lookup_blocks", "replica"),
)
REQUEST_COLUMNS = ("arrival_s", "finish_s", "replica", "finish_reason")


@dataclass(frozen=True, slots=True)
class State:
    """One state in each bin."""

    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A run in B bins of equal width."""

    edges_s: Floats
    """[B + 1]: the edges of the bins, from 0 to the end of the last step."""
    prefill_tokens_per_s: Floats
    """[B]"""
    decode_tokens_per_s: Floats
    """[B]"""
    states: dict[str, State]
    """States summed over the replicas, by the names in `STATES`."""
    replicas: dict[int, dict[str, State]]
    """The states of each replica."""
    num_blocks: int
    """The number of KV blocks of all replicas together."""
    bin_of_step: NDArray[np.int64]
    """The bin in which each step ended."""


def columns(rows: Sequence[StepRecord] | Sequence[RequestRecord], names: Sequence[str]) -> dict[str, NDArray]:
    """The fields `names` of `rows` as arrays."""
    return {name: np.array([getattr(row, name) for row in rows]) for name in names}


def over_time(steps: Columns, requests: Columns | None, num_bins: int, edges_s: tuple[float, float | None]) -> Series:
    """The run of these rows.

    Args:
        steps: `STEP_COLUMNS`, at least one row, in order of their end within each replica.
        requests: `REQUEST_COLUMNS`; None where they are not known: then no replica counts as idle before its last step.
        num_bins: B.
        edges_s: where the first bin begins and the last one ends; None for the end of the last step.
    """
    begin_s, end_s = edges_s[0], float(steps["finish_s"].max()) if edges_s[1] is None else edges_s[1]
    edges = np.linspace(begin_s, max(end_s, begin_s + 1e-9), num_bins + 1)
    prefill, decode = np.zeros(num_bins), np.zeros(num_bins)
    changes: dict[int, dict[str, tuple[Floats, Floats]]] = {}
    num_blocks = 0
    for replica in np.unique(steps["replica"]).tolist():
        own = {name: values[steps["replica"] == replica] for name, values in steps.items()}
        begins_s, ends_s = _on_device(own)
        prefill += _spread(own["num_prefill_tokens"], begins_s, ends_s, edges)
        decode += _spread(own["num_decode_tokens"], begins_s, ends_s, edges)
        idle = _idle_from(own, ends_s, requests, replica)
        changes[replica] = {name: _changes(own, name, ends_s, idle) for name in STATES}
        num_blocks += int(own["blocks_used"][0] + own["blocks_cached"][0] + own["blocks_free"][0])
    return Series(
        edges_s=edges,
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        states={name: _binned(_summed([own[name] for own in changes.values()]), edges) for name in STATES},
        replicas={
            replica: {name: _binned(change, edges) for name, change in own.items()} for replica, own in changes.items()
        },
        num_blocks=num_blocks,
        bin_of_step=np.clip(np.searchsorted(edges, steps["finish_s"], "left") - 1, 0, num_bins - 1),
    )


def _on_device(own: Columns) -> tuple[Floats, Floats]:
    """When each step of a replica began and ended on the device; overlapping ones share no time."""
    ends_s = np.maximum.accumulate(own["finish_s"])
    before_s = np.concatenate([[-np.inf], ends_s[:-1]])
    return np.minimum(np.maximum.reduce([own["finish_s"] - own["run_s"], own["submit_s"], before_s]), ends_s), ends_s


def _spread(tokens: NDArray, begins_s: Floats, ends_s: Floats, edges: Floats) -> Floats:
    """Tokens per second in each bin."""
    done = np.cumsum(tokens)
    times_s = np.stack([begins_s, ends_s], axis=1).ravel()
    counts = np.stack([done - tokens, done], axis=1).ravel()
    at_edges = np.interp(edges, times_s, counts, left=0.0)
    at_edges[edges <= times_s[0]] = 0.0  # where the first step takes no time, too
    rates: Floats = np.diff(at_edges) / np.diff(edges)
    return rates


def _idle_from(own: Columns, ends_s: Floats, requests: Columns | None, replica: int) -> NDArray[np.bool_]:
    """Whether the replica had no request left from the end of each of its steps to the next step."""
    idle = np.zeros(len(ends_s), dtype=bool)
    idle[-1] = True
    if requests is None or len(ends_s) < 2:
        return idle
    served = (requests["replica"] == replica) & (requests["finish_reason"] != "rejected")
    gap_s = (ends_s[:-1] + own["submit_s"][1:]) / 2
    arrived = np.searchsorted(np.sort(requests["arrival_s"][served]), gap_s, "right")
    ended = np.searchsorted(np.sort(requests["finish_s"][served]), gap_s, "right")
    idle[:-1] = (own["submit_s"][1:] > ends_s[:-1]) & (arrived == ended)
    return idle


def _changes(own: Columns, name: str, ends_s: Floats, idle: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """When a state of one replica changed, and its value from then on."""
    values = own[name].astype(np.float64)
    left = np.zeros(int(idle.sum())) if name in _GONE_WHEN_IDLE else values[idle]
    times_s = np.concatenate([own["submit_s"].astype(np.float64), ends_s[idle]])
    order = np.argsort(times_s, kind="stable")
    return times_s[order], np.concatenate([values, left])[order]


def _summed(parts: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """The sum of states that change at times of their own."""
    times_s = np.unique(np.concatenate([times_s for times_s, _ in parts]))
    total = np.zeros(len(times_s))
    for own_s, values in parts:
        last = np.searchsorted(own_s, times_s, "right") - 1  # of several changes at one time, the last
        total += np.where(last >= 0, values[np.maximum(last, 0)], 0.0)
    return times_s, total


def _binned(change: tuple[Floats, Floats], edges: Floats) -> State:
    """The mean over time and the extremes, in each bin, of a state that is 0 before its first change."""
    times_s, values = _summed([change])
    times_s = np.concatenate([[min(edges[0], times_s[0]) - 1.0], times_s, [max(edges[-1], times_s[-1]) + 1.0]])
    values = np.concatenate([[0.0], values, values[-1:]])
    area = np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(times_s))])
    mean = np.diff(np.interp(edges, times_s, area)) / np.diff(edges)
    rounding_s = 1e-9 * (edges[1] - edges[0])  # what reaches into a bin by that much only ends at its edge
    first = np.searchsorted(times_s, edges[:-1] + rounding_s, "right") - 1
    end = np.searchsorted(times_s, edges[1:] - rounding_s, "left")
    pairs = np.stack([first, np.maximum(end, first + 1)], axis=1).ravel()
    low, high = (extreme.reduceat(values, pairs)[::2] for extreme in (np.minimum, np.maximum))
    return State(mean=np.clip(mean, low, high), low=low, high=high)
