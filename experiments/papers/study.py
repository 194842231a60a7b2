"""Seven papers as plugins: what each claims, beside what its plugin does in simulation.

    python experiments/papers/study.py                          # all papers, five seeds; writes results.csv
    python experiments/papers/study.py --only ltr --requests 60 --seeds 0 1

Prints a Markdown table: for each arm the ratio of a metric to that of the baseline, paired by seed, with its 95 %
interval (Student's t on the logarithms).
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from draw import write  # noqa: E402

from framework.app.cells import run  # noqa: E402
from framework.records.analysis.statistics import mean  # noqa: E402

COMMON = ("executor=simulated", "model=qwen3_8b", "graph=mixed", "tracker=files", "metrics.percentiles=[50,90,95,99]")
SESSIONS = ("workload=sessions", "workload.arrival=poisson", "workload.system_tokens=200", "workload.turns_max=12")
LENGTHS = ("workload.user_tokens_max=1200", "workload.output_tokens_max=400", "workload.tool_calls_max=0")


@dataclass(frozen=True)
class Paper:
    """Its arms are overrides by name, and the first one is the baseline."""

    arms: dict[str, tuple[str, ...]]
    metrics: tuple[str, ...]
    common: tuple[str, ...]
    kind: str = ""
    """The requests of `draw.py`; empty where `common` names a workload."""
    rate_per_s: float = 0.0
    num_requests: int = 200


TIGHT = ("engine.num_blocks=1000", "engine.block_size=16", "engine.max_num_seqs=64")
PAPERS = {
    "ltr": Paper(
        arms={
            "chunked_prefill": (),
            "ltr, oracle": ("scheduler=ltr", "predictor=oracle", "scheduler.starvation_steps=1000"),
            "ltr, noisy": ("scheduler=ltr", "predictor=noisy", "scheduler.starvation_steps=1000"),
            "ltr, histogram": ("scheduler=ltr", "predictor=histogram", "scheduler.starvation_steps=1000"),
            "shortest_first, oracle": ("scheduler=shortest_first", "predictor=oracle"),
        },
        metrics=("e2e_s/mean", "e2e_s/p99", "preemptions", "length_rank_correlation"),
        common=("engine.max_num_seqs=32", "engine.block_size=16"),
        kind="mixed",
        rate_per_s=40.0,
        num_requests=500,
    ),
    "trail": Paper(
        arms={
            "chunked_prefill": (),
            "trail, noisy": ("scheduler=trail", "predictor=noisy"),
            "trail, noisy, always preemptible": ("scheduler=trail", "predictor=noisy", "scheduler.preemptible=1"),
            "trail, histogram": ("scheduler=trail", "predictor=histogram"),
        },
        metrics=("e2e_s/mean", "ttft_s/mean", "preemptions"),
        common=TIGHT,
        kind="mixed",
        rate_per_s=20.0,
    ),
    "past_future": Paper(
        arms={
            "chunked_prefill": (),
            "static_batch": ("scheduler=static_batch",),
            "past_future": ("scheduler=past_future", "predictor=histogram", "predictor.by=all"),
            "past_future, by category": ("scheduler=past_future", "predictor=histogram"),
        },
        metrics=("goodput_requests_per_s", "preemptions", "output_tokens_per_s"),
        common=(*TIGHT, "workload.max_tokens=4096", "slo.ttft_s=5", "slo.tpot_s=0.02"),
        kind="mixed",
        rate_per_s=16.0,
    ),
    "dlpm": Paper(
        arms={
            "fair": ("scheduler=fair",),
            "longest_prefix": ("scheduler=longest_prefix",),
            "dlpm": ("scheduler=dlpm",),
        },
        metrics=("output_tokens_per_s", "unfair_service_fraction", "prefix_cache_hit_rate", "ttft_s/mean"),
        common=("engine.num_blocks=2600", "engine.block_size=16", "engine.max_num_seqs=16"),
        kind="shared",
        rate_per_s=30.0,
    ),
    "tail_lru": Paper(
        arms={
            "lru": (),
            "tail_lru": ("eviction=tail_lru", "eviction.threshold_blocks=64", "eviction.next_blocks=40"),
        },
        metrics=("ttft_s/p90", "ttft_s/p95", "ttft_s/mean", "prefix_cache_hit_rate"),
        common=(
            *(*SESSIONS, *LENGTHS, "workload.num_sessions=50", "workload.rate_per_s=0.5", "workload.turns_min=1"),
            *("engine.num_blocks=4500", "engine.block_size=16", "workload.think_time_s=10"),
        ),
    ),
    "preble": Paper(
        arms={
            "round_robin": (),
            "prefix_affinity": ("router=prefix_affinity",),
            "preble": ("router=preble",),
        },
        metrics=("e2e_s/mean", "e2e_s/p99", "ttft_s/mean", "prefix_cache_hit_rate"),
        common=("executor.replicas=4", "engine.num_blocks=4000", "engine.block_size=16"),
        kind="shared",
        rate_per_s=60.0,
    ),
    "polyserve": Paper(
        arms={
            "least_loaded": ("router=least_loaded",),
            "polyserve": ("router=polyserve", "router.base_s=0.0075", "router.request_s=0.00008"),
        },
        metrics=("goodput_requests_per_s", "tpot_attainment", "ttft_attainment"),
        common=("executor.replicas=4", "engine.block_size=16", "engine.max_num_batched_tokens=1024"),
        kind="paces",
        rate_per_s=200.0,
        num_requests=1000,
    ),
}


def measure(name: str, arm: str, seed: int, num_requests: int | None, folder: Path) -> dict[str, float | None]:
    """The metrics of one cell."""
    paper = PAPERS[name]
    wanted = paper.num_requests if num_requests is None else num_requests
    workload = [f"workload.num_requests={wanted}"] if num_requests is not None or paper.kind else []
    if paper.kind:
        path = write(folder, paper.kind, seed=seed, num_requests=wanted, rate_per_s=paper.rate_per_s)
        workload = ["workload=trace", f"workload.path={path}"]
    cell = folder / f"{name}-{list(paper.arms).index(arm)}-{seed}"
    record = run([*COMMON, *workload, *paper.common, *paper.arms[arm], f"seed={seed}"], folder=cell)
    assert record.status == "completed", f"{name}, {arm}: {record.reason}"
    return {metric: record.metrics[metric] for metric in paper.metrics}


def ratio(values: Sequence[float | None], baseline: Sequence[float | None]) -> str:
    """Geometric mean of the ratios with its interval."""
    pairs = [(a, b) for a, b in zip(values, baseline, strict=True) if a and b and a > 0 and b > 0]
    if not pairs:
        return "-"
    found = mean([log(a / b) for a, b in pairs])
    if found.low is None or found.high is None:
        return f"{exp(found.value):.2f}"
    return f"{exp(found.value):.2f} [{exp(found.low):.2f}, {exp(found.high):.2f}]"


def rows(names: Sequence[str], seeds: Sequence[int], num_requests: int | None, folder: Path) -> list[list[str]]:
    """Paper, arm, metric, mean, and ratio to the baseline."""
    found = []
    for name in names:
        paper = PAPERS[name]
        cells = {arm: [measure(name, arm, seed, num_requests, folder) for seed in seeds] for arm in paper.arms}
        first = next(iter(paper.arms))
        for arm, results in cells.items():
            for metric in paper.metrics:
                values = [one[metric] for one in results]
                defined = [value for value in values if value is not None]
                shown = f"{sum(defined) / len(defined):.4g}" if defined else "-"
                against = "baseline" if arm == first else ratio(values, [one[metric] for one in cells[first]])
                found.append([name, arm, metric, shown, against])
                print("| " + " | ".join(found[-1]) + " |", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> list[list[str]]:
    """Run the study. Returns the rows of its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(PAPERS), help="these papers; all if it is left out")
    parser.add_argument("--requests", type=int, help="requests per cell, for a small form")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = rows(options.only or list(PAPERS), options.seeds, options.requests, Path(folder))
    if options.only is None and options.requests is None:
        with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["paper", "arm", "metric", "mean", "ratio"], *found])
    return found


if __name__ == "__main__":
    main()
