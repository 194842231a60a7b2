"""Simulates what `real.py` served, on the profile that it measured, and prints how far the two are apart.

`python experiments/simulator_fidelity/compare.py FOLDER --azure FOLDER/azure_conv_2023.csv [--cost-model roofline]`
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
from pathlib import Path
from typing import Any

from workloads import LOADS, SCHEDULERS_COMPARED, azure, nano_bench, synthetic

from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.interfaces.workload import TimedRequest
from framework.records.metrics.recorder import Recorder
from framework.records.metrics.summary import summarize
from framework.simulation.build import build_simulated
from framework.workloads.drive import drive

METRICS = ("output_tokens_per_s", "ttft_s/mean", "ttft_s/p99", "tpot_s/mean", "tpot_s/p99")
SHORT = ("tokens/s", "TTFT mean", "TTFT p99", "TPOT mean", "TPOT p99")


def simulate(
    real: dict[str, Any], run: dict[str, Any], cost: list[str], requests: list[TimedRequest]
) -> dict[str, Any]:
    """The metrics of the same run on a virtual clock, with as many KV blocks as the real engine had."""
    kept = [o for o in real["overrides"] if not o.startswith(("executor.device", "calibrate."))]
    cfg = compose(
        [*kept, "executor=simulated", f"engine.num_blocks={real['effective']['num_blocks']}",
         f"scheduler={run['scheduler']}", *cost]
    )  # fmt: skip
    built = build_simulated(settings_of(cfg))
    recorder = Recorder(keep_outputs=False)
    drive(built.engine, requests, [recorder])
    return summarize(recorder.requests, recorder.steps)


def requests_of(real: dict[str, Any], run: dict[str, Any], azure_path: Path, vocab_size: int) -> list[TimedRequest]:
    scale, name = real["scale"], run["workload"]
    if name == "nano_bench":
        return nano_bench(256 if scale == 1 else 8, vocab_size=vocab_size)
    if name == "azure":
        return azure(azure_path, 500 // scale, run["azure_s"], scale=scale, vocab_size=vocab_size)
    load = next(load for load in LOADS if name == f"poisson {load:.0%}")
    rate = load * real["saturated_requests_per_s"]
    return synthetic(
        int(rate * real["seconds"]), rate, scale=scale, vocab_size=vocab_size, seed=int(100 * load)
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--azure", type=Path, required=True)
    parser.add_argument("--cost-model", default="profiled", choices=("profiled", "roofline"))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides")
    args = parser.parse_args()
    errors: dict[str, list[float]] = {name: [] for name in METRICS}
    print(f"cost model {args.cost_model}; error of the simulation: simulated / real - 1\n")
    print("| model | workload | scheduler | real tokens/s | " + " | ".join(SHORT) + " |")
    print("| --- " * (4 + len(SHORT)) + "|")
    orders = []
    for path in sorted(args.folder.glob("real-*.json.gz")):
        with gzip.open(path, "rt") as file:
            real = json.load(file)
        cost = [f"cost_model={args.cost_model}", *args.set]
        profile = next(args.folder.glob(f"*-{real['model']}-*-tp1.json"), None)  # none: the shipped one
        if args.cost_model == "profiled" and profile is not None:
            cost.append(f"cost_model.path={profile}")
        cost.append(f"executor.hardware={'h200' if profile is None else profile.name.split('-')[0]}")
        if "cpu" in cost[-1]:
            cost.append("executor.dtype=float32")
        vocab_size = compose([f"model={real['model']}"]).model.config.vocab_size
        pairs: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {}
        for run in real["runs"]:
            found = simulate(real, run, cost, requests_of(real, run, args.azure, vocab_size))
            metrics = run["metrics"]
            relative = [found[name] / metrics[name] - 1 for name in METRICS]
            for name, error in zip(METRICS, relative, strict=True):
                errors[name].append(abs(error))
            pairs.setdefault(run["workload"], {})[run["scheduler"]] = (metrics, found)
            shown = " | ".join(f"{error:+.1%}" for error in relative)
            print(
                f"| {real['model']} | {run['workload']} | {run['scheduler']} | "
                f"{metrics['output_tokens_per_s']:,.0f} | {shown} |",
                flush=True,
            )
        for workload, both in pairs.items():
            if len(both) == len(SCHEDULERS_COMPARED):
                (real_a, found_a), (real_b, found_b) = (both[name] for name in SCHEDULERS_COMPARED)
                orders += [
                    (real["model"], workload, name, real_a[name] / real_b[name], found_a[name] / found_b[name])
                    for name in METRICS
                ]
    print("\n| | " + " | ".join(SHORT) + " |\n| --- " + "| --- " * len(SHORT) + "|")
    for label, take in (("median of absolute errors", statistics.median), ("largest", max)):
        print(f"| {label} | " + " | ".join(f"{take(errors[name]):.1%}" for name in METRICS) + " |")
    same = [(a > 1) == (b > 1) for *_, a, b in orders]
    print(f"\norder of the two schedulers: the same in {sum(same)} of {len(same)} comparisons")
    for (model, workload, name, a, b), agrees in zip(orders, same, strict=True):
        if not agrees:
            print(f"  {model} {workload} {name}: chunked/prefill_first {a:.3f} real, {b:.3f} simulated")


if __name__ == "__main__":
    main()
