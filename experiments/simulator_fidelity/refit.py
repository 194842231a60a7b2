"""Fits the profiles of a folder again to the points that `real.py` measured, after a change of the fit; no GPU."""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
from pathlib import Path

import workloads  # noqa: F401 (puts the project on the path)

from framework.interfaces.cost_model import StepShape
from framework.interfaces.graph import GraphScope
from framework.simulation.calibration.measure import Measured
from framework.simulation.calibration.run import fit_profile
from framework.toolkit.step_profile import StepProfile


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.folder.glob("h200-*.json")):
        old = StepProfile.read(path)
        source = next(args.folder.glob(f"*-{old.model_name}.json.gz"))
        with gzip.open(source, "rt") as file:
            points = [_point(*values) for values in json.load(file)["points"]]
        names = ("hardware", "device_name", "model_name", "model", "dtype", "kv_dtype", "tp")
        new = fit_profile(points, old.host, old.measured, {name: getattr(old, name) for name in names})
        (args.out / path.name).write_text(new.to_json())
        for error in new.errors:
            print(path.name, dataclasses.asdict(error))


def _point(shape: list[object], run_s: float, submit_s: float) -> Measured:
    step = StepShape._make(shape)
    scope = None if step.scope in (None, "None") else GraphScope[str(step.scope).rpartition(".")[2]]
    return Measured(shape=step._replace(scope=scope), run_s=run_s, submit_s=submit_s)


if __name__ == "__main__":
    main()
