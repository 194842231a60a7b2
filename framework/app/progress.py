"""What the user sees: a bar while requests run, and a table of the metrics at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from framework.interfaces.observer import Observer, Output
from framework.interfaces.records import RequestRecord, StepRecord
from framework.interfaces.workload import TimedRequest
from framework.records.metrics.percentiles import needed_count, percent_of

THIN = "†"
BAR_INTERVAL_S = 0.2
LINE_INTERVAL_S = 5.0


class ProgressBar(Observer):
    """Shows finished requests, output tokens per second, queue and KV use on stderr, so that piped output stays clean.

    A terminal gets a bar, drawn at most five times per second on the engine's thread (no thread of its own). Anything
    else gets a plain line every five seconds. Use as a context manager around the run.

    Of a simulation it shows the simulated time, since tokens per second would be the speed of the simulator.

    Args:
        num_requests: how many will end.
        console: where to draw; None for stderr.
        simulated: whether no device computes the tokens.
    """

    def __init__(self, num_requests: int, console: Console | None = None, *, simulated: bool = False) -> None:
        self.simulated = simulated
        self.console = console or Console(stderr=True)
        self.num_requests = num_requests
        self.num_done = self.num_tokens = 0
        self.interval_s = BAR_INTERVAL_S if self.console.is_terminal else LINE_INTERVAL_S
        self._step: StepRecord | None = None
        self._start_s = self._shown_s = time.monotonic()
        self._shown_tokens = 0
        self._bar = Progress(
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=self.console,
            auto_refresh=False,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("requests", total=num_requests, status="")

    def __enter__(self) -> ProgressBar:
        self._start_s = self._shown_s = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def on_reject(self, record: RequestRecord, request: TimedRequest) -> None:
        self.num_done += 1
        self.console.print(f"request rejected: {record.error}", markup=False, highlight=False, soft_wrap=True)

    def on_step(self, step: StepRecord) -> None:
        self._step = step
        # Every decode row brings a token; the first tokens, brought by prefill chunks, are not worth counting here.
        self.num_tokens += step.num_decode_tokens

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        self.num_done += sum(output.finished for output in outputs)
        if time.monotonic() - self._shown_s >= self.interval_s:
            self._show()

    def _show(self) -> None:
        now_s = time.monotonic()
        speed = f"{self._step.finish_s if self._step else 0:,.1f} s simulated"
        rate = (self.num_tokens - self._shown_tokens) / (now_s - self._shown_s)
        self._shown_s, self._shown_tokens = now_s, self.num_tokens
        status = speed if self.simulated else f"{rate:,.0f} tok/s"
        if (step := self._step) is not None:
            kv_share = step.blocks_used / (step.blocks_used + step.blocks_cached + step.blocks_free)
            status += f", {step.num_running} running, {step.num_waiting} waiting, KV {kv_share:.0%}"
        if self.console.is_terminal:
            self._bar.update(self._task, completed=self.num_done, status=status, refresh=True)
        else:
            line = f"{now_s - self._start_s:.0f} s: {self.num_done}/{self.num_requests} requests, {status}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def chosen(requested: Mapping[str, Any], effective: Mapping[str, Any]) -> str:
    """What the configuration left open and the run decided: `executor.dtype=float16, engine.block_size=256, ...`."""
    texts = []
    for key in _LEFT_OPEN:
        group, _, name = key.partition(".")
        asked = requested.get(group, {})
        asked = asked.get(name or "name", "") if isinstance(asked, Mapping) else ""
        if asked in (None, "auto") and (value := effective.get(name or group)) is not None:
            texts.append(f"{key}={value}")
    if implementation := effective.get("attention_implementation"):
        texts.append(f"attention by {implementation}")
    return ", ".join(texts)


def print_summary(
    metrics: Mapping[str, float | int | None], console: Console | None = None, *, simulated: str = ""
) -> None:
    """Print the main metrics (see `records.metrics.summary`) as two tables; undefined ones are left out.

    Args:
        simulated: the device of a simulation ("simulated NVIDIA H200"), which the titles then name. What the simulator
            itself took is left out.
    """
    console = console or Console()
    counts = Table(title=f"Run on a {simulated}" if simulated else "Run", show_header=False)
    counts.add_column()
    counts.add_column(justify="right")
    for label, name, form in _ROWS:
        if (value := metrics.get(name)) is not None and not (simulated and name in _OF_THE_SIMULATOR):
            counts.add_row(label, form.format(value))
    console.print(counts)
    of_what = "Simulated latency" if simulated else "Latency"
    latencies = Table("latency", title=f"{of_what} of completed requests (ms)")
    statistics = _statistics(metrics)
    for statistic in (*statistics, "n"):
        latencies.add_column(statistic, justify="right")
    thin = False
    for label, name in _LATENCIES:
        texts = [_latency(metrics, name, statistic) for statistic in statistics]
        thin |= any(THIN in text for text in texts)
        if texts and texts[0]:  # a calibration has none
            latencies.add_row(label, *texts, f"{metrics.get(f'{name}/count') or 0:,}")
    if latencies.row_count:
        console.print(latencies)
    if thin:
        console.print(f"{THIN} of too few values (n): hardly more than the largest one", highlight=False)


def _statistics(metrics: Mapping[str, float | int | None]) -> list[str]:
    """The mean and the percentiles that the metrics have."""
    names = [name.removeprefix("ttft_s/") for name in metrics if name.startswith("ttft_s/")]
    return [name for name in names if name == "mean" or percent_of(name) is not None]


def _latency(metrics: Mapping[str, float | int | None], name: str, statistic: str) -> str:
    value, count, percent = metrics.get(f"{name}/{statistic}"), metrics.get(f"{name}/count"), percent_of(statistic)
    if value is None:
        return ""
    is_thin = percent is not None and count is not None and count < needed_count(percent)
    return f"{value * 1e3:,.1f}" + (f" {THIN}" if is_thin else "")


_LEFT_OPEN = (
    *("attention", "graph", "executor.device", "executor.dtype", "executor.kv_dtype"),
    *("engine.block_size", "engine.max_num_seqs", "engine.max_num_batched_tokens", "engine.max_model_len"),
    "engine.num_blocks",
)
"""Keys for which `auto` or null asks for a choice, which is `effective` under the last part of their names."""
_ROWS = (
    ("requests completed", "requests_completed", "{:,}"),
    ("requests rejected", "requests_rejected", "{:,}"),
    ("requests failed", "requests_failed", "{:,}"),
    ("requests aborted", "requests_aborted", "{:,}"),
    ("duration", "duration_s", "{:,.2f} s"),
    ("start-up", "startup_s", "{:,.2f} s"),
    ("prompt tokens", "prompt_tokens", "{:,}"),
    ("output tokens", "output_tokens", "{:,}"),
    ("output tokens/s", "output_tokens_per_s", "{:,.1f}"),
    ("total tokens/s", "total_tokens_per_s", "{:,.1f}"),
    ("requests/s", "requests_per_s", "{:,.2f}"),
    ("goodput requests/s", "goodput_requests_per_s", "{:,.2f}"),
    ("SLO attainment", "slo_attainment", "{:.1%}"),
    ("steps", "steps", "{:,}"),
    ("preemptions", "preemptions", "{:,}"),
    ("evictions", "evictions", "{:,}"),
    ("prefix cache hit rate", "prefix_cache_hit_rate", "{:.1%}"),
    ("padding", "padding_fraction", "{:.1%}"),
    ("KV utilization, mean", "kv_utilization/mean", "{:.1%}"),
    ("memory bandwidth utilization", "memory_bandwidth_utilization", "{:.1%}"),
    ("model FLOPS utilization", "model_flops_utilization", "{:.1%}"),
    ("peak memory", "peak_memory_gib", "{:,.2f} GiB"),
)
_OF_THE_SIMULATOR = ("startup_s", "peak_memory_gib")
_LATENCIES = (
    ("TTFT (first token)", "ttft_s"),
    ("TPOT (per output token)", "tpot_s"),
    ("ITL (between tokens)", "itl_s"),
    ("E2E (end to end)", "e2e_s"),
    ("queue", "queue_s"),
)
