"""How long the engine's own Python takes a step: planning, sealing and delivering, with an executor that does nothing.

    python experiments/engine_overhead/measure.py [--repeats 5]

Prints milliseconds of CPU time a decode step, median and spread over the repeats, for every scheduler and several
batch sizes. CPU time and not wall time: a neighbour on the machine takes the core away for a while.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.intake import Intake
from framework.interfaces.clock import RealClock
from framework.interfaces.executor import Executor, StepBatch, StepResult
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import EVICTIONS, PREDICTORS, SCHEDULERS
from framework.registry.discovery import discover


class StubExecutor(Executor):
    """Samples token 7 for every row, at once."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks, self.clock = num_blocks, RealClock()
        self._batches: deque[StepBatch] = deque()

    def submit(self, batch: StepBatch) -> None:
        self._batches.append(batch)

    def collect(self) -> StepResult:
        batch = self._batches.popleft()
        return StepResult(step=batch.step, token_ids=[7] * sum(batch.samples))

    def close(self) -> None:
        pass


def measure(scheduler: str, num_seqs: int, *, prompt_tokens: int = 512, steps: int = 200) -> float:
    """CPU seconds a steady decode step of `num_seqs` rows."""
    policy = SCHEDULERS.get(scheduler)()
    engine = Engine(
        policy,
        EVICTIONS.get("lru")(),
        StubExecutor(num_blocks=num_seqs * 64),
        Intake(vocab_size=1 << 30, max_model_len=4096),
        EngineConfig(
            block_size=16,
            max_num_seqs=num_seqs,
            max_num_batched_tokens=8192,
            overlap=1,
        ),
        predictor=PREDICTORS.build({"name": "histogram"}) if policy.needs_prediction else None,
    )
    params = SamplingParams(max_tokens=steps + 100)
    for i in range(num_seqs):
        engine.add_request(RequestSpec(prompt_token_ids=range(i * 1000, i * 1000 + prompt_tokens), params=params))
    while engine.queue.waiting:
        engine.step()
    for _ in range(20):
        engine.step()
    started = time.process_time()
    for _ in range(steps):
        engine.step()
    return (time.process_time() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    discover()
    print(f"{'scheduler':<20}{'rows':>6}{'median ms':>12}{'min ms':>10}{'max ms':>10}")
    for scheduler in SCHEDULERS.names():
        for num_seqs in (1, 64, 256, 1024):
            times_ms = [1e3 * measure(scheduler, num_seqs) for _ in range(repeats)]
            median = statistics.median(times_ms)
            print(f"{scheduler:<20}{num_seqs:>6}{median:>12.3f}{min(times_ms):>10.3f}{max(times_ms):>10.3f}")


if __name__ == "__main__":
    main()
