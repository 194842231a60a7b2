"""A plugin that breaks a rule ends its cell as failed, with an error that names it; nothing hangs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.conformance.kit.time_limit import time_limit
from framework.records.record import Record, read_record
from framework.records.tracking.base import CellInfo
from framework.registry import REGISTRIES
from plugins.attention.sdpa import SDPA
from plugins.samplers.gumbel import Gumbel
from tests.conformance import broken_schedulers as broken
from tests.conformance.test_device_checks import OutsideVocabulary, WrongShape
from tests.conformance.test_eviction_checks import KeepsItsVictim, OldestFirst, ReturnsNothing

CELL = (
    "model=tiny",
    "workload=synthetic",
    "workload.num_requests=12",
    "workload.prompt_tokens_min=20",
    "workload.prompt_tokens_max=40",
    "workload.output_tokens_min=6",
    "workload.output_tokens_max=12",
    "workload.temperature=1.0",
    "engine.max_model_len=64",
    "engine.num_blocks=12",
    "engine.block_size=8",
    "engine.max_num_seqs=4",
    "tracker=files",
    "executor.device=cpu",
    "record.outputs=true",
)


class FailsInEvict(OldestFirst):
    """After the warm-up, whose block is evicted when the engine is reset."""

    num_evictions = 0

    def evict(self) -> Any:
        self.num_evictions += 1
        if self.num_evictions > 3:
            raise KeyError("lost")
        return super().evict()


class WritesToTheCacheOnly(SDPA):
    """Its output has no heads."""

    def forward(self, *given: Any) -> Any:
        return super().forward(*given)[:, 0]


class FailsInForward(SDPA):
    def forward(self, *given: Any) -> Any:
        raise MemoryError("no workspace")


class FailsInSample(Gumbel):
    def sample(self, *given: Any) -> Any:
        raise ArithmeticError("NaN")


def run(kind: str, name: str, folder: Path) -> Record:
    cell = CellInfo(folder=folder, cell_id="cell", config={})
    with time_limit(20.0):
        run_cell(compose([*CELL, f"{kind}={name}"]), cell)
    return read_record(folder)


def broken_record(kind: str, cls: type, folder: Path) -> Record:
    REGISTRIES[kind].register("broken_here")(cls)
    return run(kind, "broken_here", folder)


@pytest.mark.parametrize(
    ("kind", "cls", "says"),
    [
        ("scheduler", broken.DividesByZero, "DividesByZero.*ZeroDivisionError"),
        ("scheduler", broken.PreemptsTheWaiting, r"PreemptsTheWaiting.*plan.preempt\(request \d+\): it is not running"),
        ("scheduler", broken.AddsWhoHasEnded, r"AddsWhoHasEnded.*plan.add\(request \d+\): it has ended"),
        ("scheduler", broken.AddsZeroTokens, r"AddsZeroTokens.*plan.add\(request \d+, max_tokens=0\)"),
        ("scheduler", broken.AddsTwice, r"AddsTwice.*plan.add\(request \d+\): it is in this plan already"),
        ("scheduler", broken.PreemptsInTurn, r"PreemptsInTurn.*request \d+ was preempted.*no request got any further"),
        ("scheduler", broken.NeverAdmitsLongPrompts, r"NeverAdmitsLongPrompts planned nothing.*\d+ waiting"),
        ("eviction", KeepsItsVictim, r"KeepsItsVictim returned Block\(id=\d+.*the rule is"),
        ("eviction", ReturnsNothing, r"ReturnsNothing returned None.*the rule is"),
        ("eviction", FailsInEvict, r"FailsInEvict.*KeyError: 'lost'"),
        ("sampler", OutsideVocabulary, r"OutsideVocabulary sampled token id \d+; the vocabulary has 512"),
        ("sampler", WrongShape, r"WrongShape returned shape \(\d+, 1\) for \d+ rows"),
        ("sampler", FailsInSample, r"sampler FailsInSample.*ArithmeticError: NaN"),
        ("attention", FailsInForward, r"attention backend FailsInForward.*MemoryError: no workspace"),
        ("attention", WritesToTheCacheOnly, r"attention backend WritesToTheCacheOnly returned shape"),
    ],
)
def test_the_cell_fails_and_names_the_plugin(kind: str, cls: type, says: str, tmp_path: Path) -> None:
    record = broken_record(kind, cls, tmp_path)
    assert record.status == "failed"
    assert re.search(says, record.reason), record.reason


def test_requests_that_ended_before_the_failure_are_as_without_it(tmp_path: Path) -> None:
    """And those that did not end are missing, with none of their tokens passed off as an answer."""
    whole = run("scheduler", "chunked_prefill", tmp_path / "whole")
    record = broken_record("scheduler", broken.RaisesOnceThreeHaveEnded, tmp_path / "broken")
    assert record.status == "failed"
    assert 3 <= len(record.requests) < len(whole.requests)
    tokens = {output.request_id: output.token_ids for output in whole.outputs or ()}
    ended = {request.request_id for request in record.requests}
    for output in record.outputs or ():
        assert output.token_ids == (tokens[output.request_id] if output.request_id in ended else [])
