"""The cost of a process per cell beyond start and run of the engine: `python experiments/sweep_overhead/measure.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
NUM_CELLS, NUM_REPEATS = 8, 3
CELL = ["experiment=smoke", "workload.num_requests=4"]
WAYS = {
    "hydra/launcher=process": [["-m", "hydra/launcher=process", f"seed=range({NUM_CELLS})"]],
    "hydra/launcher=in_process": [["-m", "hydra/launcher=in_process", f"seed=range({NUM_CELLS})"]],
    "a call of run.py a cell": [[f"seed={seed}"] for seed in range(NUM_CELLS)],
}


def overhead_s(calls: list[list[str]], *executor: str) -> tuple[float, float]:
    """Wall seconds per cell that are neither the engine's start nor its run, and CPU seconds per cell in all."""
    with tempfile.TemporaryDirectory() as folder:
        start_s, start_cpu_s = time.perf_counter(), _children_cpu_s()
        for call in calls:
            command = [sys.executable, str(ROOT / "run.py"), *CELL, *executor, *call]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        wall_s, cpu_s = time.perf_counter() - start_s, _children_cpu_s() - start_cpu_s
        records = [json.loads(path.read_text())["metrics"] for path in Path(folder).rglob("summary.json")]
    assert len(records) == NUM_CELLS
    simulated = "executor=simulated" in executor  # whose duration is not time that passed
    own_s = sum(record["startup_s"] + (0 if simulated else record["duration_s"]) for record in records)
    return (wall_s - own_s) / NUM_CELLS, cpu_s / NUM_CELLS


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    print(f"{NUM_CELLS} cells, {NUM_REPEATS} repeats: median (least to most)")
    for executor in (["executor=local"], ["executor=simulated"]):
        for way, calls in WAYS.items():
            taken = sorted(overhead_s(calls, *executor) for _ in range(NUM_REPEATS))
            walls, cpus = zip(*taken, strict=True)
            print(
                f"{executor[0]:20} {way:28} overhead {median(walls):.2f} s ({min(walls):.2f} to {max(walls):.2f}), "
                f"CPU in all {median(cpus):.2f} s ({min(cpus):.2f} to {max(cpus):.2f})",
                flush=True,
            )
