"""Launches sealed steps on one device: batch state, then the runner of eager steps or the one of captured steps."""

from __future__ import annotations

import torch

from framework.execution.graphs.select_graph import graph_name, select_graph
from framework.execution.step.eager_steps import EagerSteps
from framework.execution.step.pending import PendingStep, Readback
from framework.interfaces.errors import PluginError
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphScope, GraphStrategy
from framework.interfaces.sampler import NOT_FINITE
from framework.interfaces.step_runner import StepRunner


class Runner:
    """Network, batch state and graphs of one rank.

    Args:
        graphs: runs the steps for which `strategy` selects a key; None if nothing is captured.
    """

    def __init__(self, eager: EagerSteps, graphs: StepRunner | None, strategy: GraphStrategy) -> None:
        self.network, self.attention, self.state = eager.network, eager.attention, eager.state
        self.sampler = eager.sampling.sampler
        self.graphs, self._eager, self._strategy = graphs, eager, strategy
        # A captured step keeps the hidden states of its last tokens only, and so may a runner that a strategy brings.
        self._keeps_last_tokens = strategy.scope is not GraphScope.PIECES or strategy.captures_itself
        self._vocab_size = self.network.model.config.vocab_size
        self._readbacks: list[Readback] = []

    def release_graphs(self) -> None:
        """Destroy the captured graphs. No step may follow. Calling it again does nothing."""
        if self.graphs is not None:
            self.graphs.release()

    def close(self) -> None:
        """Let go of the graphs, whose memory must not wait for a garbage collection."""
        self.release_graphs()
        self.graphs = None

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> PendingStep:
        """Enqueue `batch` behind all earlier steps, without waiting for any of them on a GPU."""
        readback = self._readbacks.pop() if self._readbacks else Readback(self.state.device, self.state.num_slots)
        readback.begin()
        self.state.apply(batch)
        if batch.admissions:
            self._eager.sampling.admit(batch.admissions)
            if self.graphs is not None:
                self.graphs.slots_changed()
        if self._keeps_last_tokens and self._eager.sampling.prompt_parts(batch):
            batch.eager = True
        key = None if self.graphs is None else select_graph(self._strategy, batch)
        steps = self._eager if key is None or self.graphs is None else self.graphs
        tokens = steps.run(batch, key)
        readback.end(tokens.tokens_P)
        return PendingStep(
            batch.step,
            readback,
            check=self._check_range,
            dtype=str(self.attention.spec.dtype).removeprefix("torch."),
            release=self._readbacks.append,
            logprobs=tokens.logprobs,
            prompt_logprobs=tokens.prompt_logprobs,
            graph_key=graph_name(self._strategy.scope, key),
            num_padding_tokens=key.num_tokens - batch.num_tokens if key else 0,
        )

    def _check_range(self, token_ids: list[int]) -> None:
        if min(token_ids) >= 0 and max(token_ids) < self._vocab_size:
            return
        bad = next((token for token in token_ids if not 0 <= token < self._vocab_size and token != NOT_FINITE), None)
        if bad is not None:
            raise PluginError(
                f"sampler {type(self.sampler).__name__} sampled token id {bad}; the vocabulary has {self._vocab_size}"
            )
