"""Output tokens per second on a CPU, ServeLab and `transformers` side by side in one run.

    python experiments/cpu_baseline/measure.py [--repeats 3] [--dtypes float32,bfloat16] [--transformers-dtypes float32]

Load: 32 requests, prompts of 16-256 and outputs of 16-128 random tokens (Python's `random`, seed 0), greedy, EOS
ignored, on SmolLM2-135M-Instruct; then one request of 64 tokens in and 128 out. Contents of the prompts differ from
repeat to repeat, lengths do not. Prints the median and the spread over the repeats as a Markdown table.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from framework.app.llm import LLM
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.records.environment import environment

Load = list[tuple[list[int], int]]
"""(prompt token ids, output tokens) of each request."""


def batch_load(salt: int) -> Load:
    draw, contents = random.Random(0), random.Random(salt)
    lengths = [(draw.randint(16, 256), draw.randint(16, 128)) for _ in range(32)]
    return [([contents.randrange(1000, 40_000) for _ in range(prompt)], output) for prompt, output in lengths]


def single_load(salt: int) -> Load:
    contents = random.Random(salt)
    return [([contents.randrange(1000, 40_000) for _ in range(64)], 128)]


class ServeLab:
    """One engine for all repeats, warm."""

    def __init__(self, dtype: str, **overrides: Any) -> None:
        self.llm = LLM("smollm2", dtype=dtype, max_num_seqs=32, max_model_len=1024, prefix_caching=False, **overrides)

    def run(self, load: Load) -> int:
        params = [SamplingParams(temperature=0, max_tokens=output, ignore_eos=True) for _, output in load]
        for (prompt, _), one in zip(load, params, strict=True):
            self.llm.engine.add_request(RequestSpec(prompt_token_ids=prompt, params=one))
        produced = 0
        while self.llm.engine.has_work:
            produced += sum(len(output.token_ids) for output in self.llm.engine.step())
        return produced

    def close(self) -> None:
        self.llm.close()


class Transformers:
    """`generate` on static batches of 8, left-padded; a batch runs until its longest output is done."""

    def __init__(self, dtype: str, folder: str, batch_size: int = 8) -> None:
        from transformers import AutoModelForCausalLM

        self.batch_size = batch_size
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def run(self, load: Load) -> int:
        produced = 0
        for first in range(0, len(load), self.batch_size):
            part = load[first : first + self.batch_size]
            width = max(len(prompt) for prompt, _ in part)
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in part])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in part])
            num = max(output for _, output in part)
            self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=num,
                min_new_tokens=num,
                pad_token_id=0,
            )
            produced += sum(output for _, output in part)  # what was asked for; the rest is waste
        return produced

    def close(self) -> None:
        del self.model


def _same(system: Any) -> Any:
    return system


def measure(system: Any, make_load: Callable[[int], Load], repeats: int) -> list[float]:
    """Output tokens per second of each repeat, after a short warm-up."""
    system.run([(prompt, 4) for prompt, _ in make_load(99)[:8]])
    rates = []
    for repeat in range(repeats):
        load = make_load(100 + repeat)
        started = time.perf_counter()
        produced = system.run(load)
        elapsed_s = time.perf_counter() - started
        assert produced == sum(output for _, output in load)
        rates.append(produced / elapsed_s)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--transformers-dtypes", default="float32", help="bfloat16 too takes long without AVX-512")
    options = parser.parse_args()
    rows = []
    for dtype in options.dtypes.split(","):
        ours = ServeLab(dtype)
        folder = str(ours.llm.effective["model_source"])
        print(f"ServeLab {dtype}: {ours.llm.effective}", file=sys.stderr)
        systems: list[tuple[str, Callable[[], Any]]] = [("ServeLab", partial(_same, ours))]
        if dtype in options.transformers_dtypes.split(","):
            systems.append(("transformers, batches of 8", partial(Transformers, dtype, folder)))
        for name, start in systems:
            system = start()
            for load_name, make_load in (("32 requests", batch_load), ("1 request", single_load)):
                rates = measure(system, make_load, options.repeats)
                rows.append((name, dtype, load_name, rates))
                print(f"{name} {dtype} {load_name}: {rates}", file=sys.stderr)
            system.close()  # before the next one starts: two OpenMP teams on the same cores slow each other down
    machine = environment()
    print(
        f"\n{machine['cpu']}, {torch.get_num_threads()} threads, torch {torch.__version__}, {machine['git_revision']}\n"
    )
    print("| system | dtype | load | output tokens/s, median (min-max) | ms per token |")
    print("| --- | --- | --- | --- | --- |")
    for name, dtype, load_name, rates in rows:
        median = statistics.median(rates)
        spread = f"{min(rates):.1f}-{max(rates):.1f}"
        print(f"| {name} | {dtype} | {load_name} | {median:.1f} ({spread}) | {1e3 / median:.1f} |")


if __name__ == "__main__":
    main()
