"""What can't be captured is refused before weights are loaded, with what to choose instead."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from framework.execution.graphs.setup_graphs import check_graphs
from framework.interfaces.attention import GraphSupport
from framework.interfaces.errors import IncompatibleError
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
