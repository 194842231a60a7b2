"""A further cell on an engine that has served others is the cell that a new engine would have served."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from framework.app.measure import measure_again
from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.simulation.build import build_simulated

CELL = ["executor=simulated", "model=qwen3_0_6b", "tracker=files", "workload=synthetic", "engine.max_num_seqs=4"]
CELL += [
    "workload.shared_prefix_tokens=64",
    "engine.num_blocks=40",
    "engine.max_model_len=512",
    "workload.shared_prefix_share=0.5",
]
OTHER = [*CELL, "scheduler=prefill_first", "seed=3"]
THIS = [*CELL, "scheduler=shortest_first", "eviction=length_aware", "seed=7", "workload.num_requests=40"]


def served(*cells: list[str]) -> dict[str, Any]:
    """The result of the last of `cells`, which one executor serves one after the other. Host times are left out."""
    configs = [settings_of(compose(cell)) for cell in cells]
    built = build_simulated(configs[0])
    with closing(built.engine):
        for config in configs:
            record = measure_again(built, config)
    for step in record.steps:
        step.plan_s = 0.0
    return {"cell": record.cell_id, "requests": record.requests, "steps": record.steps}


def test_nothing_is_left_of_earlier_cells() -> None:
    alone = served(THIS)
    assert served(OTHER, OTHER, THIS) == alone
    assert alone["requests"] != served(OTHER)["requests"], "the cells differ"
    assert any(step.evictions for step in alone["steps"])
    assert any(request.num_cached_tokens for request in alone["requests"])
