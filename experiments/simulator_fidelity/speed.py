"""How fast a simulation is: `python experiments/simulator_fidelity/speed.py azure mooncake curve --traces FOLDER`.

Each case runs the full engine with prefix cache, recorder and progress display, then computes the metrics and writes
the record. CPU time beside wall time, since wall time depends on who else uses the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workloads import ROOT

from framework.app.progress import ProgressBar
from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.interfaces.records import RequestRecord, StepRecord
from framework.interfaces.workload import WorkloadContext
from framework.records.metrics.recorder import Recorder
from framework.records.metrics.summary import summarize
from framework.records.tables import write_rows
from framework.registry import WORKLOADS
from framework.simulation.build import build_simulated
from framework.workloads.drive import drive
from framework.workloads.prepare import prepare

COMMON = ["executor=simulated", "executor.hardware=h200", "tracker=files", "scheduler=chunked_prefill", "eviction=lru"]
AZURE = [
    "graph=eager", "model=llama2_7b", "model.config.max_position_embeddings=16384", "engine.max_num_seqs=128",
    "engine.max_num_batched_tokens=512", "workload=azure", "workload.limit=2000",
]  # fmt: skip
MOONCAKE = [
    "model=llama3_8b", "engine.max_num_seqs=256", "engine.max_num_batched_tokens=8192", "graph=full",
    "workload=mooncake",
]  # fmt: skip
CURVE = [
    "model=llama3_8b", "engine.max_num_seqs=256", "engine.max_num_batched_tokens=8192", "graph=full", "workload=trace",
]  # fmt: skip


def measure(overrides: list[str]) -> dict[str, float]:
    wall, cpu = [time.perf_counter()], [time.process_time()]

    def lap() -> None:
        wall.append(time.perf_counter())
        cpu.append(time.process_time())

    cfg = compose([*COMMON, *overrides])
    built = build_simulated(settings_of(cfg))
    context = WorkloadContext(
        tokenizer=None, vocab_size=built.model_config.vocab_size, max_model_len=built.max_model_len, seed=0,
        needs_token_ids=False,
    )  # fmt: skip
    requests = prepare(WORKLOADS.build(cfg.workload), context)
    lap()
    recorder = Recorder(keep_outputs=False)
    with ProgressBar(len(requests)) as bar:
        drive(built.engine, requests, [recorder, bar])
    lap()
    metrics = summarize(recorder.requests, recorder.steps)
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "requests.parquet", recorder.requests, RequestRecord)
        write_rows(Path(folder) / "steps.parquet", recorder.steps, StepRecord)
    lap()
    tokens = metrics["output_tokens"] or 0
    return {
        "requests": len(requests),
        "rejected": metrics["requests_rejected"] or 0,
        "prompt_tokens": metrics["prompt_tokens"] or 0,
        "output_tokens": tokens,
        "steps": metrics["steps"] or 0,
        "simulated_s": round(metrics["duration_s"] or 0, 1),
        "hit_rate": round(metrics["prefix_cache_hit_rate"] or 0, 4),
        "preemptions": metrics["preemptions"] or 0,
        "prepare_cpu_s": round(cpu[1] - cpu[0], 2),
        "run_cpu_s": round(cpu[2] - cpu[1], 2),
        "run_wall_s": round(wall[2] - wall[1], 2),
        "record_cpu_s": round(cpu[3] - cpu[2], 2),
        "all_cpu_s": round(cpu[3] - cpu[0], 2),
        "all_wall_s": round(wall[3] - wall[0], 2),
        "tokens_per_run_cpu_s": round(tokens / (cpu[2] - cpu[1])),
        "tokens_per_run_wall_s": round(tokens / (wall[2] - wall[1])),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "load": round(os.getloadavg()[0], 1),
    }


def write_trace(path: Path, num_requests: int) -> None:
    """Short chats at 400 requests per second: 200 prompt tokens, 16 output tokens."""
    with path.open("w") as file:
        for index in range(num_requests):
            row = {"time_s": index / 400, "prompt_tokens": 200, "output_tokens": 16, "keys": [index]}
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", choices=("azure", "mooncake", "curve", "one"))
    parser.add_argument("--traces", type=Path, default=ROOT / "../shared/traces")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="further overrides")
    args = parser.parse_args()
    for case in args.cases:
        if case == "one":
            print(json.dumps(measure(args.set)), flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            runs = [(AZURE, args.traces / "azure_conv_2023.csv")] * args.repeats
            if case == "mooncake":
                runs = [
                    ([*MOONCAKE, f"engine.block_size={size}"], args.traces / "mooncake_conversation.jsonl")
                    for size in (512, 256, 16)
                ]
            if case == "curve":
                runs = []
                for count in (1_000, 10_000, 100_000, 1_000_000):
                    path = Path(folder) / f"{count}.jsonl"
                    write_trace(path, count)
                    runs.append((CURVE, path))
            for overrides, path in runs:  # a process each: peak memory is its own
                done = subprocess.run(
                    [sys.executable, __file__, "one", "--set", *overrides, f"workload.path={path}", *args.set],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                print(case, *(o for o in overrides if "block_size" in o), done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
