"""Collects the runs of the sweeps into results.csv: python experiments/capacity/collect.py NAME=FOLDER ..."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from framework.records.analysis import load

COLUMNS = (
    *("scheduler", "engine.prefix_caching", "workload.rate_per_s", "workload.limit", "seed"),
    *("slo_attainment", "goodput_requests_per_s", "requests_per_s", "output_tokens_per_s"),
    *("ttft_s/p50", "ttft_s/p90", "ttft_s/p99", "tpot_s/p99", "prefix_cache_hit_rate", "preemptions"),
)


def main(sweeps: list[str]) -> None:
    parts = []
    for text in sweeps:
        name, _, folder = text.partition("=")
        runs = load(folder)
        runs = runs[runs["status"] == "completed"][[column for column in COLUMNS if column in runs]]
        runs.insert(0, "study", name)
        parts.append(runs)
    table = pd.concat(parts).sort_values(["study", "scheduler", "engine.prefix_caching", "workload.rate_per_s", "seed"])
    table.to_csv(Path(__file__).parent / "results.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main(sys.argv[1:])
