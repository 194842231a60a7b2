"""Prints the cells of a sweep side by side: `python -m experiments.short_first_example.compare FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from framework.tracking import read_record

METRICS = ("ttft_s/mean", "ttft_s/p99", "e2e_s/mean", "output_tokens_per_s", "preemptions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--csv", type=Path, help="write the table there too")
    options = parser.parse_args()
    rows = []
    for summary in sorted(options.sweep.glob("*/summary.json")):
        record = read_record(summary.parent)
        requested, metrics = record.requested, record.metrics
        name = f"{requested['scheduler']['name']} seed {requested['seed']}"
        rows.append({"cell": name, "status": record.status, **{key: metrics.get(key) for key in METRICS}})
    if not rows:
        parser.error("no cell lies there: give the folder of the sweep, such as multirun/short_first")
    table = pd.DataFrame(rows).set_index("cell").round(4)
    print(table.to_string())
    if options.csv is not None:
        table.to_csv(options.csv)


if __name__ == "__main__":
    main()
