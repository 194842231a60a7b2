"""A run condensed to a few points for charts, in equal bins of time, whatever the number of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.over_time import REQUEST_COLUMNS, STEP_COLUMNS, Series, columns, over_time

Point = dict[str, float | int]
X_AXIS = "time/s"
MAX_REPLICAS = 8
"""With more replicas, no replica gets a series of its own."""


def condense(steps: Sequence[StepRecord], requests: Sequence[RequestRecord], max_points: int) -> list[Point]:
    """The run in `max_points` points that are equally far apart in time, fewer if it has fewer steps."""
    if not steps:
        return []
    rows = columns(steps, STEP_COLUMNS)
    found = over_time(rows, columns(requests, REQUEST_COLUMNS), min(max_points, len(steps)), (0, None))
    return list(_points(rows, found))


def point(steps: Sequence[StepRecord]) -> Point:
    """One point from `steps`, at least one, that ended since the last point. For a run that goes on."""
    rows = columns(steps, STEP_COLUMNS)
    begin_s = float((rows["finish_s"] - rows["run_s"]).min())
    (only,) = _points(rows, over_time(rows, None, 1, (begin_s, None)))
    return only


def _points(rows: dict[str, np.ndarray], series: Series) -> Iterator[Point]:
    """Each bin as a point, whose x axis is `X_AXIS`, the end of the bin in seconds.

    States are means over the time of the bin, `..._max` the largest value in it. Counts of events (`steps`,
    `evictions`, ...) are sums over the steps that ended in the bin, and `step/...` their means; those are absent
    where no step ended.
    """
    num_bins = len(series.edges_s) - 1
    ended = np.bincount(series.bin_of_step, minlength=num_bins)
    sums = {
        name: np.bincount(series.bin_of_step, weights=rows[name], minlength=num_bins) for name in (*_EVENTS, *_PER_STEP)
    }
    replicas = series.replicas if 1 < len(series.replicas) <= MAX_REPLICAS else {}
    for i in range(num_bins):
        made: Point = {
            X_AXIS: float(series.edges_s[i + 1]),
            "time/prefill_tokens_per_s": float(series.prefill_tokens_per_s[i]),
            "time/decode_tokens_per_s": float(series.decode_tokens_per_s[i]),
            "time/steps": int(ended[i]),
        }
        for short, name, whole in _STATES:
            state, total = series.states[name], series.num_blocks if whole else 1
            made |= {f"time/{short}": float(state.mean[i] / total), f"time/{short}_max": float(state.high[i] / total)}
            for replica, own in replicas.items():
                part = series.num_blocks / len(series.replicas) if whole else 1
                made[f"replica/{replica}/{short}"] = float(own[name].mean[i] / part)
        made |= {f"time/{name}": int(sums[name][i]) for name in _EVENTS}
        if ended[i]:
            made |= {f"step/{short}": float(sums[name][i] / ended[i]) for name, short in _PER_STEP.items()}
        yield made


_STATES = (
    ("running", "num_running", False),
    ("waiting", "num_waiting", False),
    ("kv_utilization", "blocks_used", True),
    ("kv_cached", "blocks_cached", True),
)
_EVENTS = ("evictions", "preemptions", "cache_hit_blocks", "cache_lookup_blocks")
_PER_STEP = {
    "num_rows": "rows",
    "num_prefill_tokens": "prefill_tokens",
    "num_decode_tokens": "decode_tokens",
    "num_padding_tokens": "padding_tokens",
    "run_s": "run_s",
    "plan_s": "plan_s",
}
