"""The soak of experiments/reliability with a small budget, and that it notices what it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.reliability import soak
from experiments.reliability.chunks import in_chunks
from framework.engine.kv_cache import KVCache
from framework.interfaces.executor import StepBatch


def run(num_requests: int, seed: int) -> soak.Totals:
    return soak.soak(num_requests, 60, seed)


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
    def alike(self: KVCache, request: Any) -> None:
        request.memory.hashes.append(len(request.memory.hashes))
        request.memory.contents.append(b"")

    monkeypatch.setattr(KVCache, "_extend_hashes", alike)
    assert any("Error" in violation for violation in run(400, seed=3).violations)


def test_a_block_that_is_never_given_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    release = KVCache.release

    def forget(self: KVCache, request: Any) -> None:
        if request.id == 5 and request.memory.blocks:
            self._hold(request.memory.blocks[0])
        release(self, request)

    monkeypatch.setattr(KVCache, "release", forget)
    assert run(400, seed=4).violations


def test_a_soak_goes_on_where_it_was(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def chunk(num_requests: int, seconds: float, seed: int) -> dict[str, Any]:
        asked.append((num_requests, seed))
        return {"requests": num_requests}

    results = tmp_path / "results.jsonl"
    in_chunks(chunk, 250, 100, 60, results)
    in_chunks(chunk, 300, 100, 60, results)
    assert asked == [(100, 0), (100, 1), (50, 2), (50, 3)]
    assert sum(json.loads(line)["requests"] for line in results.read_text().splitlines()) == 300
