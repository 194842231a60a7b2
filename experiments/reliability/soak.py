"""Serves simulated requests on machines that are too small, with aborts and failing steps, and checks every token.

    nice -n 19 python experiments/reliability/soak.py --requests 1000000 --minutes 60

It runs in chunks of 20,000 requests. Each chunk appends a line to results.jsonl, and its seed is the number of lines
that were there, so that a later call goes on until all lines together hold `--requests`. Another `--results`
begins anew.

Each round is one engine: a scheduler, an eviction policy, a graph strategy, an overlap depth and a cache of a few
blocks, all combinations in a random order that the seed fixes. What is checked is in `serve_round`. The exit code is 1
if anything was violated.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.reliability.chunks import in_chunks
from framework.conformance.kit.invariants import check_invariants
from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.engine.output import RequestOutput
from framework.interfaces.cost_model import CostModel, StepCost, StepShape
from framework.interfaces.executor import StepBatch, StepResult
from framework.interfaces.graph import GraphLimits
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import EVICTIONS, GRAPHS, PREDICTORS, SCHEDULERS, discovery
from framework.simulation.executor import SimulatedExecutor, token_at
from framework.simulation.shadow_memory import ShadowMemory
from framework.workloads.future import announce

VOCAB = 50_000
REQUESTS_PER_ROUND = 40
REQUESTS_PER_CHUNK = 20_000
KINDS = ("scheduler", "eviction", "graph", "overlap")


class InjectedError(RuntimeError):
    """A step that failed because the soak wanted it to."""


class EqualSteps(CostModel):
    """Time is not what is tested here."""

    def cost(self, step: StepShape) -> StepCost:
        return StepCost(0.004, 0.001)

    def effective(self) -> dict[str, object]:
        return {}


class FailingExecutor(SimulatedExecutor):
    """Verifies what every step reads, and fails once: while step `fail_at` is submitted, or while it is collected."""

    fail_at: int | None = None
    fail_in = "submit"

    def submit(self, batch: StepBatch) -> None:
        if self.fail_in == "submit" and batch.step == self.fail_at:
            raise InjectedError(f"step {batch.step}")
        super().submit(batch)

    def collect(self) -> StepResult:
        result = super().collect()
        if self.fail_in == "collect" and result.step == self.fail_at:
            raise InjectedError(f"step {result.step}")
        return result


@dataclass
class Totals:
    """What has run so far."""

    requests: int = 0
    rounds: int = 0
    steps: int = 0
    aborted: int = 0
    failed_steps: int = 0
    preemptions: int = 0
    evictions: int = 0
    violations: list[str] = field(default_factory=list)
    runs_of: Counter[str] = field(default_factory=Counter)


def combinations(rng: random.Random) -> Iterator[tuple[str, str, str, int]]:
    """Scheduler, eviction, graph and overlap, without end; every combination once before any comes again."""
    graphs = [name for name in GRAPHS.names() if name != "auto"]
    every = list(itertools.product(SCHEDULERS.names(), EVICTIONS.names(), graphs, (0, 1)))
    while True:
        rng.shuffle(every)
        yield from every


def serve_round(choice: tuple[str, str, str, int], rng: random.Random, totals: Totals) -> None:
    """Serve some requests on one engine.

    Checked: every position that a step reads holds the prefix that it must; every request ends; its tokens are those of
    the model, up to where it was aborted; all references and queues add up at the end, and every block is free; a step
    that fails is reported by the call that made it.

    Raises:
        Exception: whatever is wrong.
    """
    engine, specs = build(choice, rng)
    executor: Any = engine.executor
    expected: dict[int, list[int]] = {}
    live: set[int] = set()
    ended: dict[int, RequestOutput] = {}
    if rng.random() < 0.1:
        executor.fail_at, executor.fail_in = rng.randrange(60), rng.choice(["submit", "collect"])
    try:
        while specs or engine.has_work:
            while specs and (rng.random() < 0.3 or not engine.has_work):
                spec = specs.pop()
                prompt = spec.prompt_token_ids
                assert prompt is not None
                request_id = engine.add_request(spec)
                limit = min(spec.params.max_tokens, engine.intake.max_model_len - len(prompt))
                expected[request_id] = [token_at(request_id, len(prompt) + k, VOCAB) for k in range(limit)]
                live.add(request_id)
            outputs = engine.step()
            if rng.random() < 0.02 and live and (last := engine.abort(rng.choice(sorted(live)))) is not None:
                outputs.append(last)
                totals.aborted += 1
            for output in outputs:
                if output.finished:
                    live.remove(output.request_id)
                    ended[output.request_id] = output
    except InjectedError:
        totals.failed_steps += 1
        totals.requests += len(expected)
        engine.close()
        return
    totals.requests += len(expected)
    for request_id, tokens in expected.items():
        got, reason = ended[request_id].token_ids, ended[request_id].finish_reason
        whole = tokens[: len(got)] if reason == "abort" else tokens
        assert got == whole, f"request {request_id} ({reason}) got {got}, not {whole}"
    check_invariants(engine)
    assert engine.cache.num_free == engine.executor.num_blocks, "blocks are held although nothing runs"
    totals.preemptions += engine.plan.num_preempted
    totals.evictions += engine.cache.counters.evictions
    totals.steps += engine._num_steps
    engine.close()


def build(choice: tuple[str, str, str, int], rng: random.Random) -> tuple[Engine, list[RequestSpec]]:
    """An engine that is too small, and what it is asked to serve."""
    scheduler, eviction, graph, overlap = choice
    block_size = rng.choice([1, 4, 16])
    num_blocks = rng.randint(8, 24)
    max_num_seqs, max_num_batched_tokens = rng.choice([1, 2, 8]), rng.choice([8, 32, 128])
    max_len = min(48, block_size * num_blocks)
    limits = GraphLimits(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, mixed_supported=True)
    executor = FailingExecutor(
        EqualSteps(None),  # type: ignore[arg-type] (it looks at no deployment)
        GRAPHS.build({"name": graph}),
        limits,
        num_blocks=num_blocks,
        vocab_size=VOCAB,
        memory=ShadowMemory(num_blocks, block_size, max_num_seqs),
    )
    config = EngineConfig(
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        overlap=overlap,
        prefix_caching=rng.random() < 0.8,
    )
    intake = Intake(vocab_size=VOCAB, max_model_len=max_len, eos_token_ids=())
    engine = Engine(
        SCHEDULERS.build({"name": scheduler}),
        EVICTIONS.build({"name": eviction}),
        executor,
        intake,
        config,
        predictor=PREDICTORS.build({"name": "histogram", "least": 2}),
    )
    heads = [[rng.randrange(9) for _ in range(rng.randint(1, max_len // 2))] for _ in range(3)]
    specs = []
    for _ in range(REQUESTS_PER_ROUND):
        prompt = (rng.choice(heads) if rng.random() < 0.7 else []) + [
            rng.randrange(9) for _ in range(rng.randint(1, 6))
        ]
        params = SamplingParams(max_tokens=rng.randint(1, 8))
        specs.append(
            RequestSpec(
                prompt_token_ids=tuple(prompt[: max_len - 1]),
                params=params,
                priority=rng.randrange(3),
                client=rng.choice("abc"),
            )
        )
    announce(engine, specs[::-1])
    return engine, specs


def soak(num_requests: int, seconds: float, seed: int) -> Totals:
    """Serve rounds until so many requests have been served, or so much time has passed."""
    discovery.discover()
    rng, totals = random.Random(seed), Totals()
    end_s = time.monotonic() + seconds
    for choice in combinations(rng):
        if totals.requests >= num_requests or time.monotonic() > end_s:
            break
        round_seed = rng.getrandbits(32)
        try:
            serve_round(choice, random.Random(round_seed), totals)
        except Exception:  # noqa: BLE001 (counted, and shown with what repeats it)
            totals.violations.append(f"{choice}, round seed {round_seed}:\n{traceback.format_exc()}")
        totals.rounds += 1
        totals.runs_of.update(f"{kind}={name}" for kind, name in zip(KINDS, choice, strict=True))
    return totals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.jsonl"))
    options = parser.parse_args()
    failed = False

    def chunk(num_requests: int, seconds: float, seed: int) -> dict[str, Any]:
        nonlocal failed
        totals = soak(num_requests, seconds, seed)
        for violation in totals.violations[:10]:
            print(violation, file=sys.stderr)
        failed |= bool(totals.violations)
        counts = {name: value for name, value in vars(totals).items() if name not in ("violations", "runs_of")}
        fewest = min(totals.runs_of.values(), default=0)
        return {**counts, "violations": len(totals.violations), "fewest_rounds_of_a_plugin": fewest}

    in_chunks(chunk, options.requests, REQUESTS_PER_CHUNK, 60 * options.minutes, options.results)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
