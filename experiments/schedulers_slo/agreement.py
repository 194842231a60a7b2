"""Does a device put the schedulers into the order of the simulation? Kendall's tau of two sweeps, metric by metric.

    python experiments/schedulers_slo/agreement.py SIMULATED_SWEEP DEVICE_SWEEP

Tau is 1 for the same order and -1 for the reverse. Its interval comes from the seeds: each one orders the schedulers
in both sweeps, and the taus of the seeds are independent repeats (Student's t). Beside it, how far off the simulated
means are. Writes agreement.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd
from scipy.stats import kendalltau

from framework.records.analysis import load
from framework.records.analysis.statistics import MIN_SEEDS, mean

METRICS = (
    *("goodput_requests_per_s", "ttft_s/mean", "ttft_s/p99", "tpot_s/mean", "e2e_s/mean", "client/greedy/ttft_s/mean"),
    *("client/polite 1/ttft_s/mean", "fairness_index", "unfair_service_fraction", "output_tokens_per_s"),
)
COLUMNS = ["metric", "tau_of_means", "tau_mean", "tau_low", "tau_high", "seeds", "median_error", "largest_error"]


def by_scheduler(folder: str, metric: str) -> pd.DataFrame:
    """A row per seed, a column per scheduler."""
    cells = load(folder)
    cells = cells[cells["status"] == "completed"]
    return cells.pivot_table(index="seed", columns="scheduler", values=metric, aggfunc="mean")


def compare(simulated: pd.DataFrame, measured: pd.DataFrame) -> list[object]:
    """What a row of the table says after the metric's name; NaN where fewer than two schedulers have it in both."""
    schedulers = sorted(set(simulated.columns) & set(measured.columns))
    seeds = sorted(set(simulated.dropna().index) & set(measured.dropna().index))
    if len(schedulers) < 2 or not seeds:
        return [math.nan] * 4 + [len(seeds)] + [math.nan] * 2
    one, other = simulated.loc[seeds, schedulers], measured.loc[seeds, schedulers]
    errors = (one.mean() / other.mean() - 1).abs()
    taus = [float(kendalltau(one.loc[seed], other.loc[seed]).statistic) for seed in seeds]
    estimate = mean(taus)
    of_means = float(kendalltau(one.mean(), other.mean()).statistic)
    return [of_means, estimate.value, estimate.low, estimate.high, len(seeds), errors.median(), errors.max()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("simulated", help="folder of the simulated sweep")
    parser.add_argument("measured", help="folder of the sweep on a device")
    args = parser.parse_args()
    rows = [[m, *compare(by_scheduler(args.simulated, m), by_scheduler(args.measured, m))] for m in METRICS]
    table = pd.DataFrame(rows, columns=COLUMNS)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if int(table["seeds"].min()) < MIN_SEEDS:
        print(f"fewer than {MIN_SEEDS} seeds: no intervals")
    for folder in (args.simulated, args.measured):
        order = by_scheduler(folder, "goodput_requests_per_s").mean().sort_values(ascending=False)
        print(f"{folder}: " + " > ".join(f"{name} {value:.2f}" for name, value in order.items()) + " good requests/s")
    with Path(__file__).with_name("agreement.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([[f"{v:.4f}" if isinstance(v, float) else v for v in row] for row in rows])


if __name__ == "__main__":
    main()
