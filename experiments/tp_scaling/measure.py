# ruff: noqa: E501
"""Scaling over tensor-parallel ranks: `python experiments/tp_scaling/measure.py all`, or one of the parts below.

    scaling     tokens/s of nano_bench and ms per token of one request, each tp beside tp=1 in this one run
    allreduce   one sum over the ranks inside a CUDA graph, by size: NCCL, one shot, two shots
    parity      greedy tokens against tp=1: equal in fp32; in bf16 the first position that differs and the gap there
    profile     kernels of a decode step on rank 0
    transport   what a step's plan costs rank 0; needs no GPU

A line of JSON a figure, printed and appended to results.jsonl. `--ranks 2 4`, `--models qwen3_8b`, `--small` for a try on a CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.gpu_speed.measure import at_once, nano_bench, profile_steps
from framework.app.llm import LLM
from framework.execution.parallel.plan_codec import PlanDecoder, PlanEncoder
from framework.execution.parallel.ring import RingReader, RingWriter
from framework.interfaces.executor import StepBatch
from framework.interfaces.sampling_params import SamplingParams

GPU: dict[str, Any] = {
    "sampler": "gumbel",
    "graph": "full",
    "block_size": 256,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 16384,
    "max_model_len": 4096,
    "overrides": ["model.weights=random"],
}
SMALL: dict[str, Any] = {"sampler": "gumbel", "max_num_seqs": 16, "max_model_len": 1024, "num_blocks": 512}
SMALL["overrides"] = ["model.config.vocab_size=10240"]
PROMPTS = [[(7 * i + j * j) % 500 for j in range(20 + 13 * i)] for i in range(16)]


def engine(options: argparse.Namespace, model: str, tp: int, **changes: Any) -> LLM:
    base = SMALL if options.small else {**GPU, "allreduce": options.allreduce}
    return LLM("tiny" if options.small else model, tp=tp, **{**base, **changes})


def scaling(options: argparse.Namespace) -> None:
    for model, tp in itertools.product(options.models, [1, *options.ranks]):
        started = time.perf_counter()
        with engine(options, model, tp) as llm:
            keep = ("allreduce", "allreduce_passed_over", "plan_transport", "threads", "num_blocks", "device")
            about = {"model": model, "tp": tp, "start_s": round(time.perf_counter() - started, 1)}
            about |= {key: llm.effective[key] for key in keep if key in llm.effective}
            one = at_once(llm, 1, 128, 64 if options.small else 512, seed=1)
            report("one request", about | one)
            if not options.small and model == "qwen3_8b":
                report("nano_bench", about | nano_bench(llm, options.repeats))


def profile(options: argparse.Namespace) -> None:
    for model, tp in itertools.product(options.models, [1, *options.ranks]):
        with engine(options, model, tp) as llm:
            for rows, prompt in ((1, 128), (256, 850)):
                print(f"{model} tp={tp}", profile_steps(llm, rows, prompt), flush=True)


def parity(options: argparse.Namespace) -> None:
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, logprobs=2)
    dtypes = ["float32"] if options.small else ["float32", "bfloat16"]
    for model, dtype in itertools.product(options.models[:1], dtypes):
        want = None
        for tp in [1, *options.ranks]:
            with engine(options, model, tp, dtype=dtype) as llm:
                got = [output.outputs[0] for output in llm.generate(PROMPTS, params)]
            if want is None:
                want = got
                continue
            differing = []
            for one, other in zip(want, got, strict=True):
                pairs = zip(one.token_ids, other.token_ids, strict=True)
                at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
                if at is not None:
                    (_, first), (_, second) = one.logprobs[at].top  # type: ignore[index]
                    differing.append({"position": at, "gap": round(first - second, 4)})
            about = {"model": model, "dtype": dtype, "tp": tp, "requests": len(want)}
            report("parity", {**about, "differing": differing})


def allreduce(options: argparse.Namespace) -> None:
    if options.small or torch.cuda.device_count() < 2:
        report("allreduce", {"error": f"needs 2 GPUs, torch sees {torch.cuda.device_count()}"})
        return
    for size in options.ranks:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/store"
            torch.multiprocessing.spawn(sums_of_rank, (size, path), nprocs=size)
            for line in Path(f"{path}.json").read_text().splitlines():
                report("allreduce", json.loads(line))


def sums_of_rank(rank: int, size: int, path: str) -> None:
    """Microseconds of a sum, from a graph of 64 of them, on every rank; rank 0 writes them down."""
    from torch.distributed import FileStore

    from framework.execution.parallel import symmetric
    from framework.execution.parallel.connect import connect
    from framework.models.layers.group import TensorParallelGroup

    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    store = FileStore(path, size)
    process_group = connect(store, rank, size, device, 600, local=True, backend="nccl")
    shared = symmetric.SymmetricSum(store, rank, size, "sums", device, torch.bfloat16, 8 << 20)
    lines = []
    for rows in (1, 4, 16, 64, 256, 1024):
        x = torch.ones(rows, 5120, dtype=torch.bfloat16, device=device)
        for way in ("nccl", "one_shot", "two_shot"):
            symmetric.ONE_SHOT_BYTES = 1 << 30 if way == "one_shot" else 0
            group = TensorParallelGroup(rank, size, process_group, sum_small=None if way == "nccl" else shared)
            group.all_reduce(x.clone())
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                for _ in range(64):
                    group.all_reduce(x)
            times = []
            for _ in range(12):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                graph.replay()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end) * 1e3 / 64)
            about = {"tp": size, "rows": rows, "columns": 5120, "way": way}
            lines.append(
                {**about, "us_p50": round(statistics.median(times[2:]), 2), "us_max": round(max(times[2:]), 2)}
            )
    if rank == 0:
        Path(f"{path}.json").write_text("\n".join(map(json.dumps, lines)))


def transport(options: argparse.Namespace) -> None:
    """CPU time that a step's plan takes of rank 0: encoding, shared memory and waking the workers."""
    for num_rows, num_readers in itertools.product((1, 64, 256), (1, 3, 7)):
        writer = RingWriter(num_readers, lambda: None)
        children = []
        for socket in writer.reader_sockets:
            if not (child := os.fork()):
                reader, decoder = RingReader(os.dup(writer.fd), os.dup(socket.fileno())), PlanDecoder()
                while message := reader.receive():
                    decoder.decode(message)
                os._exit(0)
            children.append(child)
        encoder, cpu_us, sizes = PlanEncoder(), [], []
        for step in range(1200):
            new_blocks = [(step % num_rows, step // 16, [step])] if step % 16 == 0 else []
            batch = StepBatch(
                step, num_rows, num_rows, [1] * num_rows, list(range(num_rows)), [step] * num_rows, [True] * num_rows
            )
            batch.new_blocks = new_blocks
            before = time.thread_time_ns()
            message = encoder.encode(batch)
            writer.send(message)
            cpu_us.append((time.thread_time_ns() - before) / 1e3)
            sizes.append(len(message))
            time.sleep(0.001)
        writer.send(b"")
        for child in children:
            os.waitpid(child, 0)
        writer.close()
        figures = {"cpu_us_p50": round(statistics.median(cpu_us), 1), "cpu_us_p90": round(sorted(cpu_us)[-120], 1)}
        report(
            "transport", {"rows": num_rows, "workers": num_readers, "bytes_p50": statistics.median(sizes), **figures}
        )


def report(name: str, values: dict[str, Any]) -> None:
    revision = subprocess.getoutput("git rev-parse --short HEAD")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    line = json.dumps({"name": name, **values, "hardware": device, "torch": torch.__version__, "commit": revision})
    with OUT.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


OUT = Path("results.jsonl")
PARTS = {part.__name__: part for part in (scaling, allreduce, parity, profile, transport)}


def main() -> None:
    global OUT
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"])
    parser.add_argument("--ranks", nargs="*", type=int, default=[2, 4])
    parser.add_argument("--models", nargs="*", default=["qwen3_8b", "qwen3_32b"])
    parser.add_argument("--allreduce", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tiny model, on a CPU too")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.jsonl"))
    options = parser.parse_args()
    OUT = options.out
    for part in PARTS if "all" in options.parts else options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
