"""`graph=auto` captures what sampler, attention backend and sums allow, and nothing where there is no GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from framework.config.compose import compose
from framework.config.settings import settings_of
from framework.execution.graphs.choose_graph import choose_graph, simulated_graph, strategy_of
from framework.interfaces.attention import GraphSupport

NEVER, DECODE, MIXED = GraphSupport


@pytest.mark.parametrize(
    ("support", "graph_safe", "device", "overrides", "name"),
    [
        (MIXED, True, "cuda", [], "mixed"),
        (DECODE, True, "cuda", [], "full"),
        (MIXED, False, "cuda", [], "bucketed"),
        (NEVER, True, "cuda", [], "piecewise"),
        (MIXED, True, "cpu", [], "eager"),
        (MIXED, True, "cuda", ["compile.level=model", "compile.mode=reduce-overhead"], "eager"),
        (MIXED, True, "cuda", ["executor.tp=2", "executor.allreduce=gloo"], "eager"),
        (MIXED, True, "cuda", ["graph=lazy", "graph.max_graphs=3"], "lazy"),
    ],
)
def test_what_runs(support: GraphSupport, graph_safe: bool, device: str, overrides: list[str], name: str) -> None:
    attention: Any = SimpleNamespace(graph_support=support)
    sampler: Any = SimpleNamespace(graph_safe=graph_safe)
    strategy, found = choose_graph(settings_of(compose(overrides)), attention, sampler, device)
    assert found == name == type(strategy).__name__.lower()
    assert strategy.max_graphs == (3 if name == "lazy" else None)


@pytest.mark.parametrize(
    ("overrides", "name"), [([], "mixed"), (["executor.hardware=cpu"], "eager"), (["graph=pow2"], "pow2")]
)
def test_what_a_simulation_has(overrides: list[str], name: str) -> None:
    cfg = settings_of(compose(["executor=simulated", *overrides]))
    assert simulated_graph(cfg) == name == type(strategy_of(cfg, name)).__name__.lower()
