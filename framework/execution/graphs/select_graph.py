"""Which captured shape replays a step: one rule for GPUs, simulation and calibration."""

from __future__ import annotations

from framework.interfaces.cost_model import StepShape
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import BatchShape, GraphKey, GraphScope, GraphStrategy


def select_graph(strategy: GraphStrategy, batch: StepBatch) -> GraphKey | None:
    """The strategy's choice for `batch`; None to run it eagerly."""
    if batch.eager:
        return None
    key = strategy.select(BatchShape(num_rows=len(batch.slots), num_tokens=batch.num_tokens))
    if key is None or strategy.scope is GraphScope.PIECES or key.mixed or all(batch.samples):
        return key
    return None  # a graph of decode rows samples for each of them


def graph_for(strategy: GraphStrategy, step: StepShape) -> GraphKey | None:
    """As `select_graph`, for a step that nobody has planned."""
    key = strategy.select(BatchShape(num_rows=step.num_rows, num_tokens=step.num_tokens))
    samples = step.num_sampled == step.num_rows
    return key if key is None or strategy.scope is GraphScope.PIECES or key.mixed or samples else None


def graph_name(scope: GraphScope, key: GraphKey | None) -> str:
    """The name of a graph in step records."""
    if key is None:
        return "eager"
    return f"{scope.value}:{key.num_tokens}" + (f"x{key.num_rows}" if key.mixed else "")
