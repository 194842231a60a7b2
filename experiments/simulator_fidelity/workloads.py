"""The workloads and engine options that the real and the simulated runs share."""

from __future__ import annotations

import csv
import random
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from framework.interfaces.sampling_params import SamplingParams  # noqa: E402
from framework.interfaces.workload import TimedRequest, WorkloadContext  # noqa: E402
from framework.registry import WORKLOADS  # noqa: E402
from framework.workloads.prepare import prepare  # noqa: E402

SCHEDULERS_COMPARED = ("chunked_prefill", "prefill_first")
LOADS = (0.5, 0.8, 0.95)
ENGINE = {
    "cuda": [
        "sampler=gumbel",
        "graph=mixed",
        "engine.block_size=256",
        "engine.max_num_seqs=256",
        "engine.max_num_batched_tokens=8192",
        "engine.max_model_len=8192",
    ],
    "cpu": [
        "sampler=gumbel",
        "graph=eager",
        "engine.block_size=16",
        "engine.max_num_seqs=16",
        "engine.max_num_batched_tokens=256",
        "engine.max_model_len=2048",
    ],
}
"""As a GPU is run for speed; on a CPU, for trying the scripts out, a small copy."""
MODELS = {"qwen3_0_6b": ["graph.max_tokens=4096"]}
"""What a model wants beside that: steps of a small one are short, so that launches show in larger ones"""


def synthetic(
    num_requests: int, rate_per_s: float | None, *, scale: int, vocab_size: int, seed: int
) -> list[TimedRequest]:
    """Short chats: prompts of 64 to 512 tokens and answers of 16 to 256, `scale` times shorter on a CPU."""
    cfg = {
        "name": "synthetic",
        "num_requests": num_requests,
        "prompt_tokens_min": 64 // scale,
        "prompt_tokens_max": 512 // scale,
        "output_tokens_min": 16 // scale,
        "output_tokens_max": 256 // scale,
        "temperature": 0.6,
        "seed": seed,
    }
    if rate_per_s is not None:
        cfg |= {"arrival": "poisson", "rate_per_s": rate_per_s}
    return prepare(WORKLOADS.build(cfg), context(vocab_size))


def nano_bench(num_requests: int, *, vocab_size: int) -> list[TimedRequest]:
    return prepare(
        WORKLOADS.build({"name": "nano_bench", "num_requests": num_requests, "seed": 1}), context(vocab_size)
    )


def azure(path: Path, limit: int, seconds: float, *, scale: int, vocab_size: int) -> list[TimedRequest]:
    """The first requests of the Azure LLM inference trace 2023 (conversation) within `seconds`, random tokens."""
    with path.open() as file:
        rows = list(csv.DictReader(file))[:limit]
    times = [datetime.fromisoformat(row["TIMESTAMP"].strip()[:26]) for row in rows]
    span_s = (times[-1] - times[0]).total_seconds()
    rng = random.Random(7)
    most = min(vocab_size, 10_000)
    params = SamplingParams(temperature=0.6, max_tokens=context(vocab_size).max_model_len, ignore_eos=True)
    return [
        TimedRequest(
            arrival_s=(at - times[0]).total_seconds() / span_s * seconds,
            prompt_token_ids=[rng.randrange(most) for _ in range(max(1, int(row["ContextTokens"]) // scale))],
            params=params,
            output_tokens=max(1, int(row["GeneratedTokens"]) // scale),
        )
        for at, row in zip(times, rows, strict=True)
    ]


def context(vocab_size: int) -> WorkloadContext:
    return WorkloadContext(tokenizer=None, vocab_size=vocab_size, max_model_len=8192, seed=0)
