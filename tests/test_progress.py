"""The progress bar and the final table, on a terminal and in a pipe."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

import framework.app.progress as progress
from framework.app.progress import ProgressBar, print_summary
from framework.interfaces.records import RequestRecord, StepRecord
from framework.records.metrics.summary import summarize


class News:
    request_id, new_token_ids, text_delta, finished, finish_reason = 0, [1], "", True, "stop"
    token_ids, text, record = [1], "", None


def step() -> StepRecord:
    counts = dict.fromkeys(("evictions", "preemptions", "cache_hit_blocks", "cache_lookup_blocks"), 0)
    shape = dict.fromkeys(("num_rows", "num_prefill_tokens", "num_decode_tokens", "num_padding_tokens"), 2)
    times: dict[str, Any] = dict.fromkeys(("submit_s", "finish_s", "plan_s", "run_s"), 0.0)
    blocks = {"blocks_used": 3, "blocks_cached": 1, "blocks_free": 8}
    return StepRecord(step=0, graph_key="", num_running=4, num_waiting=5, **times, **shape, **counts, **blocks)


def run(console: Console, monkeypatch: pytest.MonkeyPatch, seconds_a_step: float) -> str:
    now_s = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    with ProgressBar(100, console) as bar:
        for _ in range(100):
            now_s[0] += seconds_a_step
            bar.on_step(step())
            bar.on_outputs([News()])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(Console(file=io.StringIO(), force_terminal=False), monkeypatch, 0.125)
    assert text.splitlines() == [
        "5 s: 40/100 requests, 16 tok/s, 4 running, 5 waiting, KV 25%",
        "10 s: 80/100 requests, 16 tok/s, 4 running, 5 waiting, KV 25%",
    ]
    assert run(Console(file=io.StringIO(), force_terminal=False), monkeypatch, 0.01) == ""


def test_a_terminal_is_drawn_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    text = run(console, monkeypatch, 0.0625)
    assert "32 tok/s, 4 running, 5 waiting, KV 25%" in text
    assert 20 <= text.count("tok/s") <= 32  # 6.25 s


def test_a_simulation_shows_no_speed_of_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=100)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    clock = iter(range(0, 1000, 6))
    with ProgressBar(2, console, simulated=True) as bar:
        bar.on_step(dataclasses.replace(step(), finish_s=1234.5))
        bar.on_outputs([News()])
    print_summary(summarize([], [step()], startup_s=1.0, peak_memory_gib=2.0), console, simulated="simulated H200")
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "1/2 requests, 1,234.5 s simulated, 4 running" in text
    assert "tok/s" not in text
    assert "Run on a simulated H200" in text
    assert "start-up" not in text
    assert "peak memory" not in text


def test_summary_table() -> None:
    record = RequestRecord(
        request_id=0,
        client="",
        arrival_s=0.0,
        scheduled_s=0.0,
        first_token_s=0.25,
        finish_s=2.0,
        num_prompt_tokens=3,
        num_output_tokens=1,
        num_cached_tokens=0,
        num_preemptions=0,
        finish_reason="stop",
    )
    console = Console(file=io.StringIO(), width=100)
    print_summary(summarize([record], [], startup_s=1.25), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 1}
    assert "250.0" in rows["TTFT (first token)"]
    assert "1.25 s" in rows["start-up"]
    assert "TPOT (per output token)" not in rows  # undefined for one token
    assert "nan" not in text.lower()
    assert "None" not in text
    print_summary(summarize([], []), console)
