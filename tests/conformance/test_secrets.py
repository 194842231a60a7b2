"""A scheduler that gets at true output lengths is found out by what it does, however it got them."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from omegaconf import OmegaConf

from framework.conformance import Budget
from framework.conformance.checks import scheduler
from framework.conformance.kit.finding import Finding
from framework.conformance.kit.secrets import SECRET
from framework.conformance.run import run_checks
from framework.engine.engine import Engine
from framework.engine.hidden_lengths import HiddenLengths
from framework.interfaces.scheduler import RequestView, Scheduler
from framework.registry import SCHEDULERS
from framework.registry.discovery import discover
from framework.toolkit.schedulers.ranked import RankedScheduler

discover()


class LooksUpTheStack(RankedScheduler):
    """Walks to the engine that called it."""

    def rank(self, request: RequestView) -> int:
        frame: Any = sys._getframe()
        while not isinstance(engine := frame.f_locals.get("self"), Engine):
            frame = frame.f_back
        return engine._hidden._ends[request.id]


class AsksTheCollector(RankedScheduler):
    _found: list[HiddenLengths] | None = None

    def rank(self, request: RequestView) -> int:
        if self._found is None:  # once: among the objects of a whole test run it takes a while
            self._found = [one for one in gc.get_objects() if type(one) is HiddenLengths]
        return sum(one._ends.get(request.id, 0) for one in self._found)


def found(build: Any, num_examples: int = 5) -> Finding:
    checks = scheduler.checks(OmegaConf.create({"name": "mine"}), build, Budget(num_examples=num_examples))
    return run_checks([check for check in checks if check.rule == SECRET])[0]


@pytest.mark.parametrize("cheat", [LooksUpTheStack, AsksTheCollector])
def test_a_scheduler_that_reads_lengths_fails(cheat: type[Scheduler]) -> None:
    finding = found(cheat)
    assert finding.status == "fails"
    assert "was to produce" in finding.detail
    assert "run with predictor=oracle" in finding.detail


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_built_in_schedulers_keep_the_secret(name: str) -> None:
    finding = found(SCHEDULERS.get(name))
    assert finding.status == "holds", finding.detail
