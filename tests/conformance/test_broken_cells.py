"""A plugin that breaks a rule ends its cell as failed, with an error that names it; nothing hangs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framework.config.compose import compose
from framework.conformance.time_limit import time_limit
from framework.experiment import run_cell
from framework.registry import EVICTIONS, SAMPLERS, SCHEDULERS
from framework.tracking import CellInfo, read_record
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
)


class FailsInEvict(OldestFirst):
    """After the warm-up, whose block is evicted when the engine is reset."""

    num_evictions = 0

    def evict(self) -> Any:
        self.num_evictions += 1
        if self.num_evictions > 3:
            raise KeyError("lost")
        return super().evict()


def reason(kind: str, cls: type, tmp_path: Path) -> tuple[str, str]:
    registry = {"scheduler": SCHEDULERS, "eviction": EVICTIONS, "sampler": SAMPLERS}[kind]
    registry.register("broken_here")(cls)
    cell = CellInfo(folder=tmp_path / "cell", cell_id="cell", config={})
    with time_limit(20.0):
        status = run_cell(compose([*CELL, f"{kind}=broken_here"]), cell)
    return status, read_record(tmp_path / "cell").reason


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
    ],
)
def test_the_cell_fails_and_names_the_plugin(kind: str, cls: type, says: str, tmp_path: Path) -> None:
    status, why = reason(kind, cls, tmp_path)
    assert status == "failed"
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(why)
