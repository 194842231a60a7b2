"""Steps condensed to a few points: a chart needs hundreds, a run has tens of thousands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from framework.interfaces.records import StepRecord

Point = dict[str, float | int]


def condense(steps: Sequence[StepRecord], max_points: int) -> Iterator[Point]:
    """At most `max_points` points, each over a run of neighbouring steps of (nearly) equal length."""
    num_points = min(max_points, len(steps))
    for i in range(num_points):
        yield point(steps[i * len(steps) // num_points : (i + 1) * len(steps) // num_points])


def over_time(item: Point) -> Point:
    """What of `point` a reader follows through time, by names of their own: `time/finish_s` is their x axis."""
    tokens = item["step/prefill_tokens"] + item["step/decode_tokens"]
    states = {f"time/{name}": item[f"step/{name}"] for name in ("finish_s", "running", "waiting", "kv_utilization")}
    return {**states, "time/tokens_per_step": tokens}


def point(steps: Sequence[StepRecord]) -> Point:
    """`steps`, at least one, as one point: events are summed, times and rows averaged, states are those at the end.

    `step/index` is its x axis.
    """
    last, n = steps[-1], len(steps)
    blocks = last.blocks_used + last.blocks_cached + last.blocks_free
    return {
        "step/index": last.step,
        "step/finish_s": last.finish_s,
        "step/count": n,
        "step/plan_s": sum(s.plan_s for s in steps) / n,
        "step/run_s": sum(s.run_s for s in steps) / n,
        "step/rows": sum(s.num_rows for s in steps) / n,
        "step/prefill_tokens": sum(s.num_prefill_tokens for s in steps) / n,
        "step/decode_tokens": sum(s.num_decode_tokens for s in steps) / n,
        "step/padding_tokens": sum(s.num_padding_tokens for s in steps) / n,
        "step/running": last.num_running,
        "step/waiting": last.num_waiting,
        "step/blocks_used": last.blocks_used,
        "step/blocks_cached": last.blocks_cached,
        "step/blocks_free": last.blocks_free,
        "step/kv_utilization": last.blocks_used / blocks,
        "step/evictions": sum(s.evictions for s in steps),
        "step/preemptions": sum(s.preemptions for s in steps),
        "step/cache_hit_blocks": sum(s.cache_hit_blocks for s in steps),
        "step/cache_lookup_blocks": sum(s.cache_lookup_blocks for s in steps),
    }
