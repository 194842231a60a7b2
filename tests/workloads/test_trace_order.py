"""Which lines of a trace are left out where its times go back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.workloads.prepare import prepare
from framework.workloads.traces.in_order import InOrder
from framework.workloads.traces.trace_row import TraceRow
from tests.workloads.test_traces import build, context, keys, line_of, write


@pytest.mark.parametrize("at", [0, 1, 500, 998])
def test_one_wrong_time_costs_one_line(tmp_path: Path, at: int) -> None:
    """A time in milliseconds among seconds, say: the lines after it are not the ones that are wrong."""
    times = [10 * i for i in range(1000)]
    times[at] *= 1000
    times[at] += 10**8
    path = write(tmp_path, [line_of(t, 5, [i]) for i, t in enumerate(times)])
    workload = build("mooncake", path, on_bad_line="skip")
    kept = [keys(r)[0] for r in prepare(workload, context())]
    assert kept == [i for i in range(1000) if i != at]
    assert (workload.effective["trace_requests"], workload.effective["bad_lines_skipped"]) == (999, 1)
    assert f"t.txt:{at + 1}: its time" in workload.effective["first_bad_line"]
    limited = build("mooncake", path, on_bad_line="skip", limit=at + 1)
    kept = [keys(r)[0] for r in prepare(limited, context())]
    assert kept == [i for i in range(at + 2) if i != at][: at + 1]


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_as_few_lines_as_possible_are_left_out(times: list[int], limit: int) -> None:
    rows = [TraceRow(time_s=t, prompt_tokens=1, output_tokens=1, line=i + 1) for i, t in enumerate(times)]
    in_order = InOrder()
    for row in rows:
        in_order.add(row)
    longest = [0] * len(times)  # by the definition, in quadratic time
    for i, t in enumerate(times):
        longest[i] = 1 + max((longest[j] for j in range(i) if times[j] <= t), default=0)
    kept, left_out = in_order.split()
    assert len(kept) == len(in_order) == max(longest, default=0)
    assert [row.time_s for row in kept] == sorted(row.time_s for row in kept)
    assert sorted([*(row.line for row in kept), *(line for line, _ in left_out)]) == [row.line for row in rows]
    assert in_order.split(limit)[0] == kept[:limit]
