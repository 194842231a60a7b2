"""On the GPU: calibrate each model shape, then serve every workload with both schedulers. One file per model, in --out.

`python experiments/simulator_fidelity/real.py qwen3_0_6b qwen3_8b --azure FOLDER/azure_conv_2023.csv --out results`
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import time
from pathlib import Path
from typing import Any

from workloads import ENGINE, LOADS, MODELS, SCHEDULERS_COMPARED, azure, nano_bench, synthetic

from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.execution.build import build_engine
from framework.execution.built import BuiltEngine
from framework.interfaces.workload import TimedRequest
from framework.records.environment import environment
from framework.records.metrics.recorder import Recorder
from framework.records.metrics.summary import summarize
from framework.registry import EVICTIONS, SCHEDULERS
from framework.simulation.calibration.run import calibrate
from framework.workloads.drive import drive

STEP_COLUMNS = (
    "submit_s", "finish_s", "plan_s", "run_s", "num_rows", "num_prefill_tokens", "num_decode_tokens",
    "num_padding_tokens", "num_waiting", "graph_key",
)  # fmt: skip


class Report:
    """Everything of one model, written again after each run: what is there counts if time runs out."""

    def __init__(self, path: Path, **values: Any) -> None:
        self.path, self.values = path, {**values, "runs": []}
        self.write()

    def add(self, run: dict[str, Any]) -> None:
        self.values["runs"].append(run)
        self.write()
        metrics = run["metrics"]
        shown = ("duration_s", "output_tokens_per_s", "ttft_s/mean", "ttft_s/p99", "tpot_s/mean", "tpot_s/p99")
        print(run["scheduler"], run["workload"], {key: round(metrics[key] or 0, 5) for key in shown}, flush=True)

    def write(self) -> None:
        with gzip.open(self.path, "wt") as file:
            json.dump(self.values, file, default=str)


def serve(
    built: BuiltEngine, cfg: Any, scheduler: str, requests: list[TimedRequest]
) -> tuple[Recorder, dict[str, Any]]:
    engine = Engine(
        SCHEDULERS.build({"name": scheduler}),
        EVICTIONS.build(cfg.eviction),
        built.engine.executor,
        built.engine.intake,
        EngineConfig(
            block_size=cfg.engine.block_size,
            max_num_seqs=cfg.engine.max_num_seqs,
            max_num_batched_tokens=cfg.engine.max_num_batched_tokens,
            overlap=cfg.engine.overlap,
            prefix_caching=cfg.engine.prefix_caching,
        ),
    )
    recorder = Recorder(keep_outputs=False)
    gc.collect()
    gc.freeze()
    engine.clock.restart()
    drive(engine, requests, [recorder])
    return recorder, summarize(recorder.requests, recorder.steps)


def saturated_rate(recorder: Recorder) -> float:
    """Requests per second that end between a fifth and four fifths of the way: while somebody always waits."""
    ends = sorted(request.finish_s for request in recorder.requests)
    low, high = len(ends) // 5, 4 * len(ends) // 5
    return (high - low) / (ends[high] - ends[low])


def steps_of(recorder: Recorder) -> dict[str, list[Any]]:
    rounded = {"submit_s", "finish_s", "plan_s", "run_s"}
    return {
        name: [round(getattr(s, name), 7) if name in rounded else getattr(s, name) for s in recorder.steps]
        for name in STEP_COLUMNS
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--device", default="cuda", choices=sorted(ENGINE))
    parser.add_argument("--azure", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long requests arrive in a run")
    parser.add_argument("--limit-s", type=float, default=540.0, help="start no further run after this long")
    parser.add_argument("--points", type=int, default=160)
    parser.add_argument("--revision", default="")
    parser.add_argument("--only-calibrate", nargs="*", default=[], help="models that serve nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    scale, nano = (1, 256) if args.device == "cuda" else (16, 8)
    for model in args.models:
        begun = time.perf_counter()
        overrides = [
            f"model={model}", "model.weights=random", f"executor.device={args.device}", *ENGINE[args.device],
            *MODELS.get(model, []), "tracker=files", "workload=synthetic", f"calibrate.num_points={args.points}",
        ]  # fmt: skip
        cfg = settings_of(compose(overrides))
        built = build_engine(cfg)
        vocab_size = built.model_config.vocab_size
        env = environment(str(built.effective["device"]))
        env["git_revision"] = args.revision or env["git_revision"]
        print(f"{model}: built in {time.perf_counter() - begun:.1f} s", flush=True)
        begun = time.perf_counter()
        profile, points = calibrate(cfg, built, env)
        print(f"{model}: calibrated in {time.perf_counter() - begun:.1f} s, {profile.errors}", flush=True)
        name = f"{profile.hardware}-{model}-{profile.dtype}-tp{profile.tp}.json"
        (args.out / name).write_text(profile.to_json())
        if model in args.only_calibrate:
            Report(args.out / f"points-{model}.json.gz", points=[[list(p.shape), p.run_s, p.submit_s] for p in points])
            built.engine.close()
            continue
        recorder, metrics = serve(
            built, cfg, "chunked_prefill",
            synthetic(int(600 / scale), None, scale=scale, vocab_size=vocab_size, seed=11),
        )  # fmt: skip
        rate = saturated_rate(recorder)
        report = Report(
            args.out / f"real-{model}.json.gz",
            model=model, overrides=overrides, environment=env, effective=built.effective, seconds=args.seconds,
            scale=scale, saturated_requests_per_s=rate,
            points=[[list(p.shape), p.run_s, p.submit_s] for p in points],
        )  # fmt: skip
        print(f"{model}: saturated at {rate:.1f} requests/s, {metrics['output_tokens_per_s']:.0f} tokens/s", flush=True)
        azure_s = args.seconds if model == "qwen3_0_6b" else 1.5 * args.seconds
        runs = {f"poisson {load:.0%}": ("poisson", load) for load in LOADS}
        for workload in ("nano_bench", *runs, "azure"):
            for scheduler in SCHEDULERS_COMPARED:
                if time.perf_counter() - started > args.limit_s:
                    print(f"{model}: {workload} {scheduler} left out, time is up", flush=True)
                    continue
                if workload == "nano_bench":
                    requests = nano_bench(nano, vocab_size=vocab_size)
                elif workload == "azure":
                    requests = azure(args.azure, 500 // scale, azure_s, scale=scale, vocab_size=vocab_size)
                else:
                    load = runs[workload][1]
                    requests = synthetic(
                        int(load * rate * args.seconds), load * rate, scale=scale, vocab_size=vocab_size,
                        seed=int(100 * load),
                    )  # fmt: skip
                recorder, metrics = serve(built, cfg, scheduler, requests)
                report.add(
                    {"workload": workload, "scheduler": scheduler, "azure_s": azure_s, "metrics": metrics,
                     "steps": steps_of(recorder)}
                )  # fmt: skip
        built.engine.close()
        del built, recorder
        gc.unfreeze()
        gc.collect()
        if args.device == "cuda":
            import torch

            torch.cuda.empty_cache()
    print(f"all in {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
