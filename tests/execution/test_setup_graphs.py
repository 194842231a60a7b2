"""What can't be captured is refused before weights are loaded, with what to choose instead."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from framework.execution.graphs.setup_graphs import build_graphs, check_graphs
from framework.interfaces.attention import GraphSupport
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.interfaces.step_runner import StepRunner
from framework.registry import GRAPHS
from tests.engine import traces  # noqa: F401 (discovers the plugins)

NEVER, DECODE, MIXED = GraphSupport


@pytest.mark.parametrize(
    ("graph", "support", "graph_safe", "device", "message"),
    [
        ("full", MIXED, True, "cpu", "captured on CUDA GPUs, not on cpu; choose graph=eager"),
        ("full", NEVER, True, "cuda", "cannot run inside a graph; choose graph=piecewise or eager"),
        (
            "mixed",
            DECODE,
            True,
            "cuda",
            "with prompt chunks in it; choose graph=full or piecewise, or attention=triton",
        ),
        ("mixed", MIXED, False, "cuda", "cannot be captured; choose sampler=full, or graph=bucketed"),
        ("mixed", MIXED, True, "cuda", None),
        ("full", DECODE, True, "cuda", None),
        ("bucketed", DECODE, False, "cuda", None),
        ("piecewise", NEVER, False, "cuda", None),
    ],
)
def test_what_a_strategy_needs(
    graph: str, support: GraphSupport, graph_safe: bool, device: str, message: str | None
) -> None:
    attention: Any = SimpleNamespace(graph_support=support)
    sampler: Any = SimpleNamespace(graph_safe=graph_safe)
    strategy = GRAPHS.build({"name": graph})
    arguments = strategy, graph, attention, sampler, "fused", torch.device(device)
    if message is None:
        check_graphs(*arguments)
        return
    with pytest.raises(IncompatibleError, match=f"graph={graph}: .*{re.escape(message)}"):
        check_graphs(*arguments)


class Undecided(GraphStrategy):
    """Could bring a runner, but leaves this machine to the framework."""

    scope = GraphScope.STEP

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        raise AssertionError("nothing may be captured")

    def select(self, shape: BatchShape) -> GraphKey | None:
        return None

    def step_runner(self, eager: StepRunner) -> StepRunner | None:
        return None


@pytest.mark.parametrize(
    ("support", "device", "message"),
    [
        (NEVER, "cuda", "cannot run inside a graph"),
        (DECODE, "cuda", "cannot be captured; choose sampler=full"),
        (MIXED, "cpu", "captured on CUDA GPUs, not on cpu"),
    ],
)
def test_a_strategy_that_brings_no_runner_after_all(support: GraphSupport, device: str, message: str) -> None:
    spec = SimpleNamespace(max_num_seqs=4, max_num_batched_tokens=8)
    eager: Any = SimpleNamespace(
        attention=SimpleNamespace(spec=spec, graph_support=support),
        sampling=SimpleNamespace(sampler=SimpleNamespace(graph_safe=False)),
        state=SimpleNamespace(device=torch.device(device)),
    )
    check_graphs(Undecided(), "undecided", eager.attention, eager.sampling.sampler, "fused", torch.device(device))
    with pytest.raises(IncompatibleError, match=f"graph=undecided: .*{re.escape(message)}"):
        build_graphs(Undecided(), "undecided", eager)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_tokens": 1}, "graph.max_tokens=1 must be at least 2"),
        ({"token_sizes": [8, 1]}, "graph.token_sizes holds 1, but a chunk has at least 2 tokens"),
    ],
)
def test_sizes_that_hold_no_chunk_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GRAPHS.build({"name": "mixed", **parameters})
