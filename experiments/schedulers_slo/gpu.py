"""The cells of `schedulers_slo_gpu` through one engine on this machine's GPU: built once, served with every scheduler.

    python experiments/schedulers_slo/gpu.py --out DIR [--limit-s 120] [--set workload.num_requests=80]

Writes the records that `python run.py -m experiment=schedulers_slo_gpu executor.device=cuda` would write. Seeds are the
outer loop, so that a run that ends early has seen every scheduler equally often.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.app.measure import measure_again
from framework.config.compose import CONF_DIR, compose
from framework.config.settings import settings_of
from framework.execution.build import build_engine
from framework.records.record import RecordWriter

STUDY = "schedulers_slo_gpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="start no further cell after this long")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every cell")
    options = parser.parse_args()
    schedulers = OmegaConf.load(CONF_DIR / "experiment" / f"{STUDY}.yaml").hydra.sweeper.params.scheduler.split(",")
    configs = {name: compose([f"experiment={STUDY}", f"scheduler={name}", *options.set]) for name in schedulers}
    began = time.perf_counter()
    built = build_engine(settings_of(configs[schedulers[0]]))
    with closing(built.engine):
        measure_again(built, settings_of(configs[schedulers[0]]))  # a rehearsal
        for seed in range(options.seeds):
            for name, config in configs.items():
                if time.perf_counter() - began > options.limit_s:
                    print(f"{name} seed {seed}: left out, {options.limit_s:.0f} s are over", flush=True)
                    continue
                cfg = OmegaConf.merge(config, {"seed": seed})
                assert isinstance(cfg, DictConfig)
                record = measure_again(built, settings_of(cfg))
                RecordWriter(options.out / name / str(seed)).write(record)
                shown = ("duration_s", "goodput_requests_per_s", "ttft_s/p99", "tpot_s/mean")
                print(name, seed, {key: record.metrics[key] for key in shown}, flush=True)


if __name__ == "__main__":
    main()
