"""The cells of the three ablation studies in one process: an engine an arm, which serves every load and seed in turn.

    python experiments/ablation/measure.py --out DIR [--arms all,none] [--seeds 0,1,2,3,4]

Writes the records that `python run.py -m experiment=NAME` would write for each study, without building an engine for
each of them. Every engine serves each load once before anything counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.app.measure import measure_again
from framework.config.compose import CONF_DIR, compose
from framework.config.settings import settings_of
from framework.execution.build import build_engine
from framework.execution.built import BuiltEngine
from framework.interfaces.errors import IncompatibleError
from framework.records.record import RecordWriter

LOADS = ("ablation", "ablation_prefix", "ablation_single")
WARM_UP_SEED = 99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", help="comma-separated names; all by default")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="start no further arm after this long")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every cell")
    options = parser.parse_args()
    arms = OmegaConf.load(CONF_DIR / "experiment" / "ablation.yaml").hydra.sweeper.arms
    names = options.arms.split(",") if options.arms else list(arms)
    began = time.perf_counter()
    for name in names:
        if time.perf_counter() - began > options.limit_s:
            print(f"{name}: left out, {options.limit_s:.0f} s are over", flush=True)
            continue
        configs = {load: _compose(load, name, [*arms[name], *options.set]) for load in LOADS}
        started = time.perf_counter()
        try:
            built = build_engine(settings_of(configs[LOADS[0]]))
            ready_s = time.perf_counter() - started
            with closing(built.engine):
                _run_arm(built, configs, [int(seed) for seed in options.seeds.split(",")], options.out, name)
        except (IncompatibleError, ValueError, RuntimeError) as error:  # the time on a lent GPU is short: go on
            print(f"{name}: left out: {type(error).__name__}: {error}", flush=True)
            continue
        print(f"{name}: ready after {ready_s:.1f} s, done after {time.perf_counter() - started:.1f} s", flush=True)


def _compose(load: str, arm: str, overrides: Sequence[str]) -> DictConfig:
    return compose([f"experiment={load}", *overrides, f"study.arm={arm}"])


def _run_arm(built: BuiltEngine, configs: Mapping[str, DictConfig], seeds: Sequence[int], out: Path, arm: str) -> None:
    for seed in [WARM_UP_SEED, *seeds]:
        for load, config in configs.items():
            cfg = OmegaConf.merge(config, {"seed": seed})
            assert isinstance(cfg, DictConfig)
            record = measure_again(built, settings_of(cfg))
            if seed != WARM_UP_SEED:
                RecordWriter(out / load / arm / str(seed)).write(record)


if __name__ == "__main__":
    main()
