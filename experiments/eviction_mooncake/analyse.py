"""Hit rates and TTFT by policy and cache size, as a fraction of Belady's: tables, results.csv and figure.svg.

    python experiments/eviction_mooncake/analyse.py multirun/eviction_mooncake

Takes any number of sweep folders. The hit rates without an engine come from replay.csv (replay.py). A cache that holds
all 55,287 blocks of the trace evicts nothing: of 100,000 blocks one policy is run, and stands for all.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd
from matplotlib.figure import Figure

from framework.records.analysis import load
from framework.records.analysis.figures.style import PALETTE
from framework.records.analysis.statistics import mean

INTERVALS = ("prefix_cache_hit_rate", "ttft_s/mean", "ttft_s/p99")
HERE = Path(__file__).resolve().parent
KEYS = {
    "eviction": "policy",
    "engine.num_blocks": "num_blocks",
    "workload.arrival": "arrival",
    "requests_completed": "requests",
    "seed": "arrival_seed",
    "eviction.seed": "seed",
}
METRICS = (
    *("prefix_cache_hit_rate", "block_hit_rate", "ttft_s/mean", "ttft_s/p50", "ttft_s/p99", "queue_s/mean"),
    *("output_tokens_per_s", "kv_utilization/mean", "preemptions", "evictions"),
)


def cells(folders: list[str]) -> pd.DataFrame:
    found = load(folders)
    found = found[found["status"] == "completed"]
    found = found[[*KEYS, *METRICS]].rename(columns=KEYS)
    found["seed"], found["requests"] = found["seed"].fillna(0).astype(int), found["requests"].astype(int)
    return found.sort_values(["policy", "num_blocks", "arrival", "seed", "arrival_seed"]).round(6)


def show_arrivals(table: pd.DataFrame) -> None:
    """Where arrival times were replaced by five Poisson processes: means and differences, with intervals."""
    for size, at_size in table.groupby("num_blocks"):
        pivots = {m: at_size.pivot(index="arrival_seed", columns="policy", values=m) for m in INTERVALS}
        print(f"\n{size:,} blocks, Poisson arrivals: mean; difference to lru, paired by seed; with 95 % intervals")
        for metric, pivot in pivots.items():
            for policy in pivot:
                own, difference = mean(pivot[policy].tolist()), mean((pivot[policy] - pivot["lru"]).tolist())
                texts = [f"{e.value:.4f} ({_digits(e.low)} to {_digits(e.high)})" for e in (own, difference)]
                print(f"| {metric} | {policy} | " + " | ".join(texts) + " |")


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def by_size(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row per policy, a column per size, the mean over seeds; the best at 10,000 blocks first."""
    pivot = table.pivot_table(index="policy", columns="num_blocks", values=metric, aggfunc="mean")
    return pivot.sort_values(10_000, ascending=metric.startswith("ttft"))


def fraction(pivot: pd.DataFrame) -> pd.DataFrame:
    return pivot / pivot.loc["belady"]


def intervals(table: pd.DataFrame, metric: str) -> list[str]:
    """Of `random`, the only policy with a seed, where it ran with five."""
    texts = []
    for size, group in table[table["policy"] == "random"].groupby("num_blocks"):
        estimate = mean(group[metric].tolist())
        if estimate.low is not None and estimate.high is not None:
            texts.append(f"{size}: {estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})")
    return texts


def draw(parts: list[tuple[str, pd.DataFrame]]) -> Figure:
    figure = Figure(figsize=(4 * len(parts), 4.6), layout="constrained")
    axes = figure.subplots(1, len(parts))
    policies = ["belady", *sorted(set(parts[0][1].index) - {"belady"})]
    for one, (title, pivot) in zip(axes, parts, strict=True):
        for i, policy in enumerate(policies):
            line = pivot.loc[policy].dropna()
            style = "--" if policy == "random" else "-"
            width = 2.4 if policy == "belady" else 1.3
            one.plot(
                line.index,
                line.to_numpy(),
                style,
                label=policy,
                color="black" if policy == "belady" else PALETTE[(i - 1) % 12],
                linewidth=width,
                marker="o",
                markersize=3,
            )
        one.set(xscale="log", xlim=(900, 110_000), xlabel="KV blocks of 512 tokens")
        one.set_title(title, fontsize=9)
        one.grid(visible=True, color="#e4e7eb")
    axes[-1].set_yscale("log")
    axes[-1].legend(fontsize=7)
    return figure


def show(title: str, pivot: pd.DataFrame, digits: int) -> None:
    print(f"\n{title}\n\n| policy | " + " | ".join(f"{size:,}" for size in pivot.columns) + " |")
    print("| --- " * (len(pivot.columns) + 1) + "|")
    for policy, row in pivot.iterrows():
        print(f"| {policy} | " + " | ".join("" if pd.isna(v) else f"{v:.{digits}f}" for v in row) + " |")


def show_engine(table: pd.DataFrame, num_requests: int) -> None:
    title = f"in the engine, {num_requests:,} requests"
    hits, ttft = by_size(table, "prefix_cache_hit_rate"), by_size(table, "ttft_s/mean")
    show(f"Prompt tokens found in the cache, {title}", hits, 3)
    show("As a fraction of Belady's", fraction(hits), 2)
    show(f"Mean TTFT, s, {title}", ttft, 2)
    show("Over Belady's", fraction(ttft), 2)
    show("99th percentile of TTFT, s", by_size(table, "ttft_s/p99"), 1)
    show("Share of the blocks that running requests hold", by_size(table, "kv_utilization/mean"), 2)
    show("Preemptions", by_size(table, "preemptions"), 0)
    for metric in ("prefix_cache_hit_rate", "ttft_s/mean"):
        print(f"random, {metric}, mean (95 % interval) of five seeds:", "; ".join(intervals(table, metric)))


def main() -> None:
    table = cells(sys.argv[1:])
    table.to_csv(HERE / "results.csv", index=False, lineterminator="\n")
    show_arrivals(table[table["arrival"] == "poisson"])
    table = table[table["arrival"] == "trace"]
    parts = []
    for num_requests, rows in table.groupby("requests"):
        show_engine(rows, num_requests)
        hits = by_size(rows, "prefix_cache_hit_rate")
        parts.append((f"Hit rate / Belady's, engine, {num_requests:,} requests", fraction(hits)))
    for num_requests, rows in pd.read_csv(HERE / "replay.csv").groupby("requests"):
        replayed = by_size(rows, "block_hit_rate")
        show(f"Blocks found without an engine, {num_requests:,} requests", replayed, 3)
        show("As a fraction of Belady's", fraction(replayed), 2)
        print("random, mean (95 % interval) of five seeds:", "; ".join(intervals(rows, "block_hit_rate")))
    parts.append((f"Hit rate / Belady's, replayed, {num_requests:,} requests", fraction(replayed)))
    first = table[table["requests"] == table["requests"].min()]
    parts.append(("Mean TTFT, s, engine", by_size(first, "ttft_s/mean")))
    draw(parts).savefig(HERE / "figure.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
