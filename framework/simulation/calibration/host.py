"""What the host does between two launches: planning, delivering, recording. It is measured by serving requests."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from framework.engine.engine import Engine
from framework.interfaces.cost_model import StepShape
from framework.interfaces.executor import Executor, StepBatch, StepResult
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.step_shape import step_shape


class TimedExecutor(Executor):
    """Passes everything on, and records the time from the end of each `collect` to the next `submit`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.num_blocks, self.clock = executor.num_blocks, executor.clock
        self._collected_s: float | None = None
        self.samples: list[tuple[StepShape, float]] = []

    def submit(self, batch: StepBatch) -> None:
        if self._collected_s is not None:
            self.samples.append((step_shape(batch), time.perf_counter() - self._collected_s))
        self._executor.submit(batch)

    def collect(self) -> StepResult:
        result = self._executor.collect()
        self._collected_s = time.perf_counter()
        return result

    def close(self) -> None:
        self._executor.close()


def accepted_params(engine: Engine) -> SamplingParams:
    """What most requests ask of a sampler, or greedy decoding if `engine` does nothing else."""
    params = SamplingParams(temperature=0.6, ignore_eos=True)
    return replace(params, temperature=0.0) if engine.intake.refuses(params) else params


def measure_host(engine: Engine, *, vocab_size: int, num_tokens: int = 48) -> list[tuple[StepShape, float]]:
    """Host seconds of steps of 1, 8, 64 and 256 rows, `max_num_seqs` at most, while `engine` serves requests."""
    rng = random.Random(1)
    real = engine.executor
    timed = engine.executor = TimedExecutor(real)
    most = engine.plan.slots_left
    params = replace(accepted_params(engine), max_tokens=num_tokens)
    try:
        for num_rows in sorted({min(size, most) for size in (1, 8, 64, 256)}):
            for _ in range(num_rows):
                ids = [rng.randrange(min(vocab_size, 10_000)) for _ in range(32)]
                engine.add_request(RequestSpec(prompt_token_ids=ids, params=params))
            while engine.has_work:
                engine.step()
    finally:
        engine.executor = real
    engine.reset()
    return [(shape, seconds) for shape, seconds in timed.samples if shape.num_decode_rows == shape.num_rows]
