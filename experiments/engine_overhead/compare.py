"""Compares two commits by what a user waits for: a typing mistake, a simulated cell, a simulation, and planning.

    python experiments/engine_overhead/compare.py --before 8dbe3ab --after HEAD --rounds 5

The commits are unpacked into a temporary folder and take turns, so that a drift of the machine strikes both. Times are
CPU seconds of the process and its children, with wall seconds beside them. Planning is measured by measure.py of each
commit. Five rounds take less than four minutes on an idle machine of two cores.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CELL = ["executor=simulated", "model=llama3_8b", "workload=synthetic", "tracker=files"]
PLANNING = """
import sys
sys.path.insert(0, "experiments/engine_overhead")
import measure
measure.discover()
for name in measure.SCHEDULERS.names():
    print(name, min(1e3 * measure.measure(name, 256) for _ in range(2)))
"""
CASES = {
    "typing mistake answered": ["run.py", "scheduler=chunked_prefil"],
    "one simulated request": ["run.py", *CELL, "workload.num_requests=1"],
    "simulation of 3,000 requests": ["run.py", *CELL, "workload.num_requests=3000"],
    "planning": ["-c", PLANNING],
}


def run(tree: Path, command: list[str], output: Path) -> tuple[float, float, str]:
    """CPU seconds, wall seconds and what it printed."""
    if command[0] == "run.py":
        command = [*command, f"hydra.run.dir={output}"]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    before, begin_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    wall_s, after = time.perf_counter() - begin_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode and "chunked_prefil" not in command[-2]:
        raise SystemExit(f"{tree}: {' '.join(command)}: {done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s, done.stdout


def planning_ms(printed: str) -> dict[str, float]:
    """Scheduler -> milliseconds per step of 256 rows."""
    return {name: float(value) for name, value in map(str.split, printed.splitlines())}


def show(what: str, unit: str, before: list[float], after: list[float]) -> None:
    medians = statistics.median(before), statistics.median(after)
    spreads = [f"{min(values):.3f} to {max(values):.3f}" for values in (before, after)]
    change = f"{100 * (medians[1] / medians[0] - 1):+.1f} %"
    print(f"| {what} | {medians[0]:.3f} {unit} ({spreads[0]}) | {medians[1]:.3f} {unit} ({spreads[1]}) | {change} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="8dbe3ab")
    parser.add_argument("--after", default="HEAD")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        trees = {name: Path(temporary) / name for name in ("before", "after")}
        for name, tree in trees.items():
            tree.mkdir()
            archive = subprocess.run(
                ["git", "archive", getattr(options, name)], cwd=ROOT, capture_output=True, check=True
            )
            subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
        cpu_s: dict[tuple[str, str], list[float]] = {}
        wall_s: dict[tuple[str, str], list[float]] = {}
        planning: dict[tuple[str, str], list[float]] = {}
        for number in range(options.rounds + 1):  # the first round fills caches and is left out
            for what, command in CASES.items():
                if number == 0 and command[0] != "run.py":
                    continue
                for name in ("before", "after") if number % 2 else ("after", "before"):
                    output = Path(temporary) / f"run-{number}-{name}-{len(wall_s)}-{time.monotonic_ns()}"
                    cpu, wall, printed = run(trees[name], command, output)
                    if number:
                        cpu_s.setdefault((what, name), []).append(cpu)
                        wall_s.setdefault((what, name), []).append(wall)
                        for row, value in planning_ms(printed).items() if command[0] != "run.py" else ():
                            planning.setdefault((row, name), []).append(value)
    print(f"| {options.rounds} rounds: median (least to most) | {options.before} | {options.after} | change |")
    print("| --- | --- | --- | --- |")
    for what, command in CASES.items():
        if command[0] == "run.py":
            show(f"{what}, CPU", "s", cpu_s[what, "before"], cpu_s[what, "after"])
            show(f"{what}, wall", "s", wall_s[what, "before"], wall_s[what, "after"])
    for row in [row for row, name in planning if name == "before" and (row, "after") in planning]:
        show(f"planning, 256 rows: {row}", "ms", planning[row, "before"], planning[row, "after"])


if __name__ == "__main__":
    main()
