"""How long steps take, learned while they run: least squares, one step at a time."""

from __future__ import annotations

from collections import deque
from math import floor, log2

import numpy as np

from framework.interfaces.cost_model import StepShape
from framework.interfaces.executor import StepBatch
from framework.interfaces.records import StepRecord
from framework.toolkit.step_shape import step_shape

_LEAST_STEPS = 16
"""No forecast is made of fewer steps."""
_PRIOR = 1e3
"""The variance of the coefficients before the first step, in squared seconds per scaled unit of work."""
_SURPRISE = 1.5
"""A step that takes this many times as long as expected is a hiccup, unless the one before it was one too. So is one
that takes a quarter of it: two steps may return almost together."""
_RATE = 0.2
"""The share of its error that a correction takes over at each step, once it has seen some."""
_PER_OCTAVE = 8
"""Corrections for each doubling of the expected time."""


class StepForecast:
    """Recursive least squares over what a step computes and reads, apart for steps with and without prompt chunks.
    Errors count relative to the time of a step. On top of that, steps of about the same expected time share a factor
    that follows their recent errors: time is not linear in work where launching gives way to memory, and memory to
    arithmetic, and a device may change.

    Steps begin and end in order.
    """

    def __init__(self) -> None:
        self._decode, self._mixed = _Fit(3), _Fit(6)
        self._shapes: deque[StepShape] = deque()
        self._last_finish_s = 0.0

    def submitted(self, batch: StepBatch) -> None:
        """`batch` is about to run."""
        self._shapes.append(step_shape(batch))

    def ended(self, record: StepRecord) -> None:
        """The oldest step that was submitted has ended, as `record` says."""
        shape = self._shapes.popleft()
        added_s = record.finish_s - max(record.submit_s, self._last_finish_s)
        self._last_finish_s = record.finish_s
        if added_s > 0:  # two steps may return together
            self.learn(shape, added_s)

    def learn(self, step: StepShape, seconds: float) -> None:
        """`step` took `seconds`, which are above 0."""
        fit = self._decode if step.num_tokens == step.num_decode_rows else self._mixed
        fit.learn(_features(step), seconds)

    def seconds(self, step: StepShape) -> float | None:
        """What `step` would take; None while too few steps of its kind have run."""
        fit = self._decode if step.num_tokens == step.num_decode_rows else self._mixed
        return fit.seconds(_features(step))


class _Fit:
    """One linear model and its factors."""

    def __init__(self, size: int) -> None:
        self._coefficients = np.zeros(size)
        self._covariance = np.eye(size) * _PRIOR
        self._num_steps = 0
        self._shortest_s = 0.0
        self._surprised = False
        self._factors: dict[int, tuple[float, int]] = {}
        """By expected time: the factor, and how many steps it has seen."""

    def learn(self, features: list[float], seconds: float) -> None:
        work = np.array(features)
        linear = float(work @ self._coefficients)
        if self._num_steps:
            base = max(linear, self._shortest_s)
            factor, count = self._factors.get(_place(base), (1.0, 0))
            surprise = self._num_steps >= _LEAST_STEPS and not 0.25 < seconds / (base * factor) < _SURPRISE
            self._surprised = surprise and not self._surprised
            if self._surprised:
                return
            rate = max(_RATE, 1 / (count + 1))
            self._factors[_place(base)] = factor + rate * (seconds / base - factor), count + 1
            self._shortest_s = min(self._shortest_s, seconds)
        else:
            self._shortest_s = seconds
        self._num_steps += 1
        scaled = self._covariance @ work
        gain = scaled / (seconds * seconds + float(work @ scaled))
        self._coefficients += gain * (seconds - linear)
        self._covariance -= np.outer(gain, scaled)

    def seconds(self, features: list[float]) -> float | None:
        if self._num_steps < _LEAST_STEPS:
            return None
        linear = sum(a * b for a, b in zip(features, self._coefficients.tolist(), strict=True))
        base = max(linear, self._shortest_s)
        return base * self._factors.get(_place(base), (1.0, 0))[0]


def _place(seconds: float) -> int:
    return floor(_PER_OCTAVE * log2(seconds))


def _features(step: StepShape) -> list[float]:
    """Scaled so that each is around 1 in a large step."""
    if step.num_tokens == step.num_decode_rows:
        return [1.0, step.num_rows / 256, step.decode_kv_tokens / 2**18]
    return [
        1.0,
        step.num_tokens / 4096,
        step.num_rows / 256,
        step.decode_kv_tokens / 2**18,
        step.prefill_kv_tokens / 2**14,
        step.prefill_pairs / 2**23,
    ]
