"""The soak of experiments/reliability with a small budget, and that it notices what it is for."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.reliability import soak
from framework.engine.kv_cache import KVCache
from framework.interfaces.executor import StepBatch


def run(num_requests: int, seed: int) -> soak.Totals:
    return soak.soak(num_requests, 60, seed, report=lambda line: None)


def test_no_violation() -> None:
    totals = run(800, seed=7)
    assert totals.violations == []
    assert totals.requests >= 800
    assert min(totals.aborted, totals.failed_steps, totals.preemptions, totals.evictions) > 0


def test_a_seed_repeats_a_run() -> None:
    assert vars(run(200, seed=1)) == vars(run(200, seed=1))


def test_a_wrong_token_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = soak.SimulatedExecutor._sample

    def wrong(self: Any, batch: StepBatch, num_sampled: int) -> list[int]:
        return [(token + (batch.step == 9)) % soak.VOCAB for token in sample(self, batch, num_sampled)]

    monkeypatch.setattr(soak.SimulatedExecutor, "_sample", wrong)
    assert any("got [" in violation for violation in run(400, seed=2).violations)


def test_a_prefix_of_somebody_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "_hash", lambda self, request, index: index)
    monkeypatch.setattr(KVCache, "_same", lambda self, block, request, index, parent: True)
    assert any("Error" in violation for violation in run(400, seed=3).violations)


def test_a_block_that_is_never_given_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    release = KVCache.release

    def forget(self: KVCache, request: Any) -> None:
        if request.id == 5 and request.memory.blocks:
            self._hold(request.memory.blocks[0])
        release(self, request)

    monkeypatch.setattr(KVCache, "release", forget)
    assert run(400, seed=4).violations
