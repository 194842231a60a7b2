"""Runs designed steps on an executor, one in flight as the engine has it, and times them."""

from __future__ import annotations

import random
import statistics
import time
from array import array
from dataclasses import dataclass, replace

from framework.execution.graphs.select_graph import select_graph
from framework.interfaces.cost_model import StepShape
from framework.interfaces.executor import Admission, Executor, StepBatch, StepResult
from framework.interfaces.graph import GraphStrategy
from framework.interfaces.sampling_params import SamplingParams
from framework.simulation.calibration.design import Point
from framework.toolkit.step_shape import step_shape


@dataclass(slots=True, frozen=True, kw_only=True)
class Measured:
    """One designed step. Times are seconds, as medians over its repeats."""

    shape: StepShape
    run_s: float
    """Seconds from when the device starts the step to its end."""
    submit_s: float
    """Host time of `submit`."""


class Bench:
    """Puts designed steps together. Each row gets its own slot and blocks, so that no step reads memory twice."""

    def __init__(
        self, executor: Executor, strategy: GraphStrategy, *, block_size: int, vocab_size: int, params: SamplingParams
    ) -> None:
        self._executor, self._block_size, self._vocab_size, self._strategy = executor, block_size, vocab_size, strategy
        self._rng = random.Random(0)
        self._params = params
        self._step = 0

    def measure(
        self, point: Point, repeats: int, skip: int = 2, *, new_rows: bool = False, eager: bool = False
    ) -> Measured:
        """Median times of `repeats` steps in a row after `skip` that are not counted.

        Steps of decode rows alone go on from token to token, with the same rows or, for `new_rows`, in another order
        each time. Others compute the same positions again, their chunks as those of requests that were just admitted.
        """
        moves = all(row.num == 1 for row in point)
        submits: list[float] = []
        results: list[StepResult] = []
        total = repeats + skip
        shape: StepShape | None = None
        for index in range(total):
            batch = self._batch(point, index if moves else 0, turned=index % 2 == 1 and new_rows and moves)
            batch.eager = eager
            if index == 0 or not moves:
                self._admit(batch, point, total if moves else 1, chunks_only=index > 0)
            started = time.perf_counter()
            self._executor.submit(batch)
            submits.append(time.perf_counter() - started)
            if index:
                results.append(self._executor.collect())
            if index == skip + repeats // 2:
                shape = self._shape(batch, new_rows=new_rows or not moves)
        results.append(self._executor.collect())
        assert shape is not None
        return Measured(
            shape=shape,
            run_s=statistics.median(result.run_s for result in results[skip:]),
            submit_s=statistics.median(submits[skip:]),
        )

    def _batch(self, point: Point, moved: int, *, turned: bool) -> StepBatch:
        rows = list(enumerate(point))
        if turned:
            rows.reverse()
        self._step += 1
        return StepBatch(
            step=self._step,
            num_tokens=sum(row.num for row in point),
            num_decode_rows=sum(row.num == 1 for row in point),
            row_tokens=[row.num for _, row in rows],
            slots=[slot for slot, _ in rows],
            starts=[row.start + moved for _, row in rows],
            samples=[row.samples for _, row in rows],
        )

    def _admit(self, batch: StepBatch, point: Point, last: int, *, chunks_only: bool) -> None:
        next_block = 0
        for slot, row in enumerate(point):
            known = row.start + row.num
            num_blocks = -(-(known + last) // self._block_size)
            assert next_block + num_blocks <= self._executor.num_blocks, "a designed step exceeds the KV cache"
            if row.num > 1 or not chunks_only:
                ids = array("i", self._rng.choices(range(min(10_000, self._vocab_size)), k=known))
                params = replace(self._params, max_tokens=1 + slot)  # no two requests ask for quite the same
                batch.admissions.append(Admission(slot, slot, ids, known, params, slot))
                batch.new_blocks.append((slot, 0, list(range(next_block, next_block + num_blocks))))
            next_block += num_blocks

    def _shape(self, batch: StepBatch, *, new_rows: bool) -> StepShape:
        key = select_graph(self._strategy, batch)
        return step_shape(batch, key, None if key is None else self._strategy.scope, new_rows=new_rows)
