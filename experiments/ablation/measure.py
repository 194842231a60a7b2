"""The cells of the three ablation studies in one process: an engine an arm, which serves every load and seed in turn.

    python experiments/ablation/measure.py --out DIR [--arms all,none] [--seeds 0,1,2,3,4]

Writes the records that `python run.py -m experiment=NAME` would write for each study, without building an engine for
each of them. Every engine serves each load once before anything counts.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.build import build_engine
from framework.built import BuiltEngine
from framework.config.compose import CONF_DIR, compose
from framework.errors import IncompatibleError
from framework.measure import draw, measure
from framework.registry import WORKLOADS
from framework.tracking.record import Record, RecordWriter, cell_id

LOADS = ("ablation", "ablation_prefix", "ablation_single")
WARM_UP_SEED = 99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", help="comma-separated names; all by default")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every cell")
    options = parser.parse_args()
    arms = OmegaConf.load(CONF_DIR / "experiment" / "ablation.yaml").hydra.sweeper.arms
    names = options.arms.split(",") if options.arms else list(arms)
    for name in names:
        configs = {load: _compose(load, name, [*arms[name], *options.set]) for load in LOADS}
        started = time.perf_counter()
        try:
            built = build_engine(configs[LOADS[0]])
        except IncompatibleError as error:
            print(f"{name}: skipped: {error}", flush=True)
            continue
        ready_s = time.perf_counter() - started
        with closing(built.engine):
            _run_arm(built, configs, [int(seed) for seed in options.seeds.split(",")], options.out, name)
        del built
        gc.collect()
        print(f"{name}: ready after {ready_s:.1f} s, done after {time.perf_counter() - started:.1f} s", flush=True)


def _compose(load: str, arm: str, overrides: Sequence[str]) -> DictConfig:
    return compose([f"experiment={load}", *overrides, f"study.arm={arm}"])


def _run_arm(built: BuiltEngine, configs: Mapping[str, DictConfig], seeds: Sequence[int], out: Path, arm: str) -> None:
    for seed in [WARM_UP_SEED, *seeds]:
        for load, config in configs.items():
            cfg = OmegaConf.merge(config, {"seed": seed})
            assert isinstance(cfg, DictConfig)
            record = run_cell(built, cfg)
            if seed != WARM_UP_SEED:
                RecordWriter(out / load / arm / str(seed)).write(record)


def run_cell(built: BuiltEngine, cfg: DictConfig) -> Record:
    """One cell on an engine that has served others: its cache is empty, its clock and ids start again."""
    built.engine.reset()
    built.engine.intake.seed = cfg.engine.seed
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    requested = {str(key): value for key, value in config.items()}
    record = Record(status="completed", cell_id=cell_id(requested), requested=requested)
    requests = draw(cfg, built, WORKLOADS.build(cfg.workload), record)
    gc.collect()
    measure(cfg, built, requests, record, [])
    return record


if __name__ == "__main__":
    main()
