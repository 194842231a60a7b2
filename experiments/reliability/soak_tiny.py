"""Serves the tiny model on a CPU, with aborts and failing steps, and compares every token with a run alone.

    OMP_NUM_THREADS=1 nice -n 19 python experiments/reliability/soak_tiny.py --requests 20000 --minutes 60

Each round is one `LLM` with a scheduler, an eviction policy, an overlap depth and a cache of 12 to 24 blocks, which
serves 250 requests of a pool. What a request of the pool must get is computed once, one request at a time, by
`chunked_prefill` with a large cache and without prefix caching. Some requests are streamed and left early. In half of
the rounds a step fails now and then; those of its requests that ended as failed are not compared. A later call goes on
where this one ended, as with soak.py; the results are in results_tiny.jsonl.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.reliability.chunks import in_chunks
from framework.app.llm import LLM
from framework.interfaces.errors import RequestCutOffError
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import EVICTIONS, SCHEDULERS

REQUESTS_PER_ROUND = 250
POOL_SIZE = 200
CPU = {"device": "cpu", "threads": 1, "max_model_len": 96}


class InjectedError(RuntimeError):
    """A step that failed because the soak wanted it to."""


def make_pool() -> list[tuple[list[int], SamplingParams]]:
    """Prompts of which many share a beginning, with greedy and seeded sampling; the same in every run."""
    rng = random.Random(0)
    heads = [[rng.randrange(256) for _ in range(rng.randint(16, 50))] for _ in range(8)]
    pool = []
    for _ in range(POOL_SIZE):
        head = rng.choice(heads) if rng.random() < 0.7 else []
        prompt = head + [rng.randrange(256) for _ in range(rng.randint(1, 12))]
        greedy = rng.random() < 0.5
        params = SamplingParams(
            temperature=0.0 if greedy else rng.choice([0.5, 1.0]),
            top_p=1.0 if greedy else rng.choice([1.0, 0.9]),
            seed=rng.getrandbits(64),
            max_tokens=rng.randint(1, 24),
            ignore_eos=True,
        )
        pool.append((prompt, params))
    return pool


def alone(pool: list[tuple[list[int], SamplingParams]]) -> list[list[int]]:
    """The tokens of each request when nothing else runs."""
    with LLM("tiny", prefix_caching=False, max_num_seqs=1, overlap=0, num_blocks=64, **CPU) as llm:
        return [llm.generate([prompt], params)[0].outputs[0].token_ids for prompt, params in pool]


def serve_round(
    pool: list[tuple[list[int], SamplingParams]], want: list[list[int]], rng: random.Random, counts: dict[str, Any]
) -> None:
    """Serve requests on one engine, in calls of a few.

    Raises:
        AssertionError: a token is wrong, or blocks are held although nothing runs.
    """
    choice = {
        "scheduler": rng.choice(SCHEDULERS.names()),
        "eviction": rng.choice(
            [name for name in EVICTIONS.names() if not issubclass(EVICTIONS.get(name), NeedsFuture)]
        ),
        "overlap": rng.randrange(2),
        "num_blocks": rng.randint(12, 24),
        "max_num_seqs": rng.choice([2, 4, 8]),
    }
    with LLM("tiny", **choice, **CPU) as llm:
        left, fails = REQUESTS_PER_ROUND, rng.random() < 0.5
        while left > 0:
            picked = [rng.randrange(len(pool)) for _ in range(min(left, rng.randint(1, 25)))]
            left -= len(picked)
            if fails and rng.random() < 0.1:
                fail_once(llm, rng.randrange(40))
            counts["requests"] += len(picked)
            if rng.random() < 0.2:
                stopped(llm, pool, want, picked[0], rng, counts)
            try:
                outputs = llm.generate([pool[one][0] for one in picked], [pool[one][1] for one in picked])
            except (InjectedError, RequestCutOffError):
                counts["failed_steps"] += 1
                continue
            for one, output in zip(picked, outputs, strict=True):
                if isinstance(output.error, InjectedError):
                    counts["failed_requests"] += 1
                    continue
                assert output.error is None, output.error
                got = output.outputs[0].token_ids
                assert got == want[one], f"{choice}: request {one} got {got}, not {want[one]}"
        cache = llm.engine.cache
        assert cache.num_free == llm.engine.executor.num_blocks, f"{choice}: blocks are held although nothing runs"


def stopped(
    llm: LLM,
    pool: list[tuple[list[int], SamplingParams]],
    want: list[list[int]],
    one: int,
    rng: random.Random,
    counts: dict[str, Any],
) -> None:
    """Start to stream a request and leave it after a few tokens."""
    stream, got = llm.stream(*pool[one]), []
    try:
        for _, part in zip(range(rng.randint(1, 4)), stream, strict=False):
            got += part.token_ids
        assert want[one][: len(got)] == got, f"stream of request {one} gave {got}, not {want[one]}"
    except (InjectedError, RequestCutOffError):
        counts["failed_steps"] += 1
    finally:
        stream.close()
    counts["aborted"] += 1


def fail_once(llm: LLM, after: int) -> None:
    """The forward pass after that many others raises, once."""
    network = llm.engine.executor._runner.network  # type: ignore[attr-defined]
    real, left = type(network).forward, [after]

    def forward(*arguments: Any, **keywords: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            del network.forward
            raise InjectedError("a forward pass")
        return real(network, *arguments, **keywords)

    network.forward = forward


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results_tiny.jsonl"))
    options = parser.parse_args()
    pool = make_pool()
    want = alone(pool)
    failed = False

    def chunk(num_requests: int, seconds: float, seed: int) -> dict[str, Any]:
        nonlocal failed
        counts: dict[str, Any] = dict.fromkeys(
            ("requests", "aborted", "failed_steps", "failed_requests", "violations"), 0
        )
        try:
            serve_round(pool, want, random.Random(seed), counts)
        except Exception as error:  # noqa: BLE001 (counted and shown)
            print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
            counts["violations"] += 1
            failed = True
        return counts

    in_chunks(chunk, options.requests, REQUESTS_PER_ROUND, 60 * options.minutes, options.results)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
