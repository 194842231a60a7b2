"""Piecewise graphs by number of tokens, with the buffers that they read."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from framework.execution.graphs.cache import GraphCache
from framework.execution.graphs.pieces import PiecewiseGraph
from framework.execution.step.eager_steps import EagerSteps
from framework.execution.step.network import Attend
from framework.execution.step.step_inputs import StepInputs
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey
from framework.interfaces.step_runner import StepTokens


class PieceGraphs:
    """The `StepRunner` of scope `PIECES`: an eager step whose forward pass is replayed, for batches of any kind."""

    def __init__(self, eager: EagerSteps, max_tokens: int, *, max_graphs: int | None = None) -> None:
        self._eager = eager
        self._network = network = eager.network
        config = network.model.config
        device = eager.state.device
        self._token_ids_T = torch.zeros(max_tokens, dtype=torch.int32, device=device)
        self._position_T = torch.zeros(max_tokens, dtype=torch.int64, device=device)
        self._slot_T = torch.full((max_tokens,), -1, dtype=torch.int64, device=device)
        width = network.model.num_heads * config.head_size
        self._answer = torch.zeros(max_tokens * width, dtype=network.model.embed_tokens.weight.dtype, device=device)
        self.cache = GraphCache(device, self._capture, max_graphs)

    @torch.inference_mode()
    def capture(self, key: GraphKey) -> None:
        """Capture `key` ahead of its first use."""
        self.cache.get(key)

    def run(self, batch: StepBatch, key: GraphKey | None) -> StepTokens:
        assert key is not None
        return self._eager.run_with(batch, partial(self._replay, self.cache.get(key), key))

    def slots_changed(self) -> None:
        pass

    def release(self) -> None:
        self.cache.close()

    def effective(self) -> dict[str, object]:
        return self.cache.effective()

    def _replay(self, graph: PiecewiseGraph, key: GraphKey, inputs: StepInputs, attend: Attend) -> Tensor:
        layout = inputs.layout
        num_tokens, padded = layout.num_tokens, slice(layout.num_tokens, key.num_tokens)
        self._token_ids_T[:num_tokens].copy_(inputs.token_ids_T)
        self._position_T[:num_tokens].copy_(layout.positions_T)
        self._slot_T[:num_tokens].copy_(layout.slot_mapping_T)
        self._slot_T[padded].fill_(-1)
        self._position_T[padded].zero_()
        return graph.replay(attend, num_tokens)

    def _capture(self, key: GraphKey, pool: Any) -> PiecewiseGraph:
        num_tokens = key.num_tokens
        self._slot_T.fill_(-1)
        self._position_T.zero_()
        inputs = self._token_ids_T[:num_tokens], self._position_T[:num_tokens], self._slot_T[:num_tokens]
        self._network.forward(*inputs, self._rehearse)
        torch.cuda.synchronize()
        return PiecewiseGraph(self._network, *inputs, self._answer, pool)

    def _rehearse(self, layer: int, *inputs: Tensor) -> Tensor:
        return self._answer[: inputs[0].shape[0] * inputs[0][0].numel()].view(inputs[0].shape)
