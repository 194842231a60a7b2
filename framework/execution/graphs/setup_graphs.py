"""Captures the graphs that a strategy asks for, or says why that is not possible."""

from __future__ import annotations

import torch

from framework.execution.graphs.piece_graphs import PieceGraphs
from framework.execution.graphs.step_graphs import StepGraphs
from framework.execution.step.eager_steps import EagerSteps
from framework.interfaces.attention import AttentionBackend, GraphSupport
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.graph import GraphKey, GraphLimits, GraphScope, GraphStrategy
from framework.interfaces.sampler import Sampler
from framework.interfaces.step_runner import StepRunner


def check_graphs(
    strategy: GraphStrategy,
    name: str,
    attention: AttentionBackend,
    sampler: Sampler,
    kernels: str,
    device: torch.device,
) -> None:
    """Refuse, before any weight is loaded, what can't be captured.

    Raises:
        IncompatibleError: naming what stands in the way and what to choose instead.
    """
    if name != "eager" and not strategy.captures_itself:
        _check_capture(strategy, name, attention, sampler, device)


def _check_capture(
    strategy: GraphStrategy, name: str, attention: AttentionBackend, sampler: Sampler, device: torch.device
) -> None:
    if device.type != "cuda":
        raise IncompatibleError(f"graph={name}: graphs are captured on CUDA GPUs, not on {device}; choose graph=eager")
    if strategy.scope is GraphScope.PIECES:
        return
    if attention.graph_support < GraphSupport.DECODE:
        raise IncompatibleError(
            f"graph={name}: {type(attention).__name__} cannot run inside a graph; choose graph=piecewise or eager, or "
            f"attention=triton"
        )
    if strategy.needs_mixed and attention.graph_support < GraphSupport.MIXED:
        raise IncompatibleError(
            f"graph={name}: {type(attention).__name__} cannot run inside a graph with prompt chunks in it; choose "
            f"graph=full or piecewise, or attention=triton"
        )
    if strategy.scope is GraphScope.STEP and not sampler.graph_safe:
        raise IncompatibleError(
            f"graph={name}: {type(sampler).__name__} cannot be captured; choose sampler=full, or graph=bucketed"
        )


def build_graphs(strategy: GraphStrategy, name: str, eager: EagerSteps) -> StepRunner | None:
    """Capture what the strategy lists; None for a strategy that captures nothing, now or later.

    Args:
        name: that of the strategy, for error messages.
        eager: the steps of this rank without graphs, which are captured.

    Raises:
        IncompatibleError: the strategy brings no runner here although it can, and the framework can't capture either.
        ValueError: out of memory while capturing.
    """
    spec = eager.attention.spec
    limits = GraphLimits(
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=spec.max_num_batched_tokens,
        mixed_supported=eager.attention.graph_support >= GraphSupport.MIXED,
    )
    graphs = strategy.step_runner(eager)
    if graphs is None and strategy.captures_itself:  # so `check_graphs` has not looked at it
        _check_capture(strategy, name, eager.attention, eager.sampling.sampler, eager.state.device)
    if graphs is None and eager.state.device.type != "cuda":
        return None
    keys = strategy.keys(limits)
    if graphs is None:
        graphs = _by_scope(strategy, eager, keys)
    for key in keys:
        graphs.capture(key)
    return graphs


def _by_scope(strategy: GraphStrategy, eager: EagerSteps, keys: list[GraphKey]) -> StepRunner:
    spec = eager.attention.spec
    if strategy.scope is GraphScope.PIECES:
        largest = max((key.num_tokens for key in keys), default=spec.max_num_batched_tokens)
        return PieceGraphs(eager, largest, max_graphs=strategy.max_graphs)
    return StepGraphs(
        eager,
        strategy.scope,
        max_rows=spec.max_num_seqs,
        max_tokens=spec.max_num_batched_tokens,
        max_graphs=strategy.max_graphs,
    )
