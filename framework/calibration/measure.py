"""Runs designed steps on an executor, one in flight as the engine has it, and times them."""

from __future__ import annotations

import random
import statistics
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from framework.calibration.design import Point, Row
from framework.execution.executor import Admission, Executor, StepBatch, StepResult
from framework.execution.simulated import step_shape
from framework.interfaces.cost_model import StepShape
from framework.interfaces.graph import GraphKey, GraphScope
from framework.interfaces.sampling_params import SamplingParams


@dataclass(slots=True, frozen=True, kw_only=True)
class Measured:
    """One designed step. Seconds, medians over its repeats."""

    shape: StepShape
    run_s: float
    """From the device's start of the step to its end"""
    submit_s: float
    """Host time of `submit`"""


class Bench:
    """Puts designed steps together: each row gets a slot and blocks of its own, so that no step reads memory twice."""

    def __init__(self, executor: Executor, *, block_size: int, vocab_size: int, scope: GraphScope) -> None:
        self._executor, self._block_size, self._vocab_size, self._scope = executor, block_size, vocab_size, scope
        self._rng = random.Random(0)
        self._step = 0

    def measure(self, point: Point, repeats: int, skip: int = 2) -> Measured:
        """Median times of `repeats` steps in a row after `skip` that are not counted.

        Steps of decode rows alone go on from token to token; others compute the same positions again.
        """
        moves = all(row.num == 1 for row in point)
        submits: list[float] = []
        results: list[StepResult] = []
        total = repeats + skip
        shape: StepShape | None = None
        for index in range(total):
            batch = self._batch(point, index if moves else 0, first=index == 0, last=total if moves else 1)
            started = time.perf_counter()
            self._executor.submit(batch)
            submits.append(time.perf_counter() - started)
            if index:
                results.append(self._executor.collect())
            if index == skip + repeats // 2:
                shape = step_shape(batch, None, None, False)
        results.append(self._executor.collect())
        assert shape is not None
        return Measured(
            shape=self._with_graph(shape, results[-1]),
            run_s=statistics.median(result.run_s for result in results[skip:]),
            submit_s=statistics.median(submits[skip:]),
        )

    def _batch(self, point: Point, moved: int, *, first: bool, last: int) -> StepBatch:
        batch = StepBatch(
            step=self._step,
            num_tokens=sum(row.num for row in point),
            num_decode_rows=sum(row.num == 1 for row in point),
            row_tokens=[row.num for row in point],
            slots=list(range(len(point))),
            starts=[row.start + moved for row in point],
            samples=[row.samples for row in point],
        )
        self._step += 1
        if first:
            self._admit(batch, point, last)
        return batch

    def _admit(self, batch: StepBatch, point: Sequence[Row], last: int) -> None:
        next_block = 0
        params = SamplingParams(temperature=0.6, max_tokens=1)
        for slot, row in enumerate(point):
            known = row.start + row.num
            ids = array("i", self._rng.choices(range(min(10_000, self._vocab_size)), k=known))
            batch.admissions.append(Admission(slot, slot, ids, known, params, slot))
            num_blocks = -(-(known + last) // self._block_size)
            assert next_block + num_blocks <= self._executor.num_blocks, "a designed step exceeds the KV cache"
            batch.new_blocks.append((slot, 0, list(range(next_block, next_block + num_blocks))))
            next_block += num_blocks

    def _with_graph(self, shape: StepShape, result: StepResult) -> StepShape:
        if result.graph_key == "eager":
            return shape
        padded = shape.num_tokens + result.num_padding_tokens
        rows = shape.num_rows if self._scope is GraphScope.PIECES else padded
        key = GraphKey(padded, rows)
        return shape._replace(scope=self._scope, padded_tokens=key.num_tokens, padded_rows=key.num_rows)
