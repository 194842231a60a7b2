"""The requests of the study, drawn from a seed, as lines of `workload=trace`. None comes from a published trace."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

KEY_TOKENS = 512
CATEGORIES = {"label": (8, 0.4, 4), "chat": (150, 0.8, 5), "code": (500, 0.7, 2), "essay": (1200, 0.4, 1)}
"""Category -> median length of an answer, standard deviation of its logarithm, and weight."""
PACES_S = (0.012, 0.025, 0.05)


def mixed(rng: random.Random, rate_per_s: float) -> Iterator[dict[str, Any]]:
    """Categories whose answers differ in length, within each over a wide range."""
    names, weights = list(CATEGORIES), [weight for _, _, weight in CATEGORIES.values()]
    time_s = 0.0
    while True:
        time_s += rng.expovariate(rate_per_s)
        category = rng.choices(names, weights)[0]
        median, sigma, _ = CATEGORIES[category]
        yield {
            "time_s": round(time_s, 6),
            "prompt_tokens": _length(rng, 300, 0.8),
            "output_tokens": _length(rng, median, sigma),
            "category": category,
        }


def shared(rng: random.Random, rate_per_s: float) -> Iterator[dict[str, Any]]:
    """Six clients, each with four documents of 4,096 tokens and short questions. One of them asks half of all."""
    clients = [f"client {number}" for number in range(6)]
    fresh, time_s = count(1000), 0.0
    while True:
        time_s += rng.expovariate(rate_per_s)
        client = rng.choices(range(len(clients)), [5, 1, 1, 1, 1, 1])[0]
        document = client * 4 + rng.randrange(4)
        yield {
            "time_s": round(time_s, 6),
            "prompt_tokens": 9 * KEY_TOKENS,
            "output_tokens": _length(rng, 60, 0.5),
            "keys": [*range(document * 8, document * 8 + 8), next(fresh)],
            "key_tokens": KEY_TOKENS,
            "client": clients[client],
        }


def paces(rng: random.Random, rate_per_s: float) -> Iterator[dict[str, Any]]:
    """Three objectives of the time per output token, equally often."""
    time_s = 0.0
    while True:
        time_s += rng.expovariate(rate_per_s)
        pace_s = rng.choice(PACES_S)
        yield {
            "time_s": round(time_s, 6),
            "prompt_tokens": _length(rng, 300, 0.8),
            "output_tokens": _length(rng, 250, 0.6),
            "tpot_slo_s": pace_s,
            "ttft_slo_s": 2.0,
        }


KINDS: dict[str, Callable[[random.Random, float], Iterator[dict[str, Any]]]] = {
    "mixed": mixed,
    "shared": shared,
    "paces": paces,
}


def write(folder: Path, kind: str, *, seed: int, num_requests: int, rate_per_s: float) -> Path:
    """The file with these requests, which is written unless it is there."""
    path = folder / f"{kind}-{seed}-{num_requests}-{rate_per_s:g}.jsonl"
    if not path.exists():
        rows = KINDS[kind](random.Random(f"{kind}/{seed}"), rate_per_s)
        lines = [json.dumps(row) for row, _ in zip(rows, range(num_requests), strict=False)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _length(rng: random.Random, median: float, sigma: float) -> int:
    return max(1, min(4000, round(median * rng.lognormvariate(0, sigma))))
