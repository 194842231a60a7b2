"""Captured steps: the forward pass, or everything from the input gather to the token fed back.

Shape letters: R rows (padded), P sampled rows (padded), V vocabulary, D model size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framework.execution.graphs.cache import CapturedGraph, Graph, GraphCache
from framework.execution.graphs.mixed_rows import MixedRows
from framework.execution.step.device_state import DeviceState
from framework.execution.step.network import Network
from framework.execution.step.pick import pick_tokens
from framework.execution.step.rows import ResidentRows
from framework.interfaces.attention import AttentionBackend
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey, GraphScope
from framework.interfaces.sampler import Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams

_PADDING = SamplingParams(temperature=0)


@dataclass(slots=True)
class StepOutputs:
    """Static memory that the next replay overwrites; logits and tokens only with scope `STEP`."""

    hidden_PD: Tensor
    """Of the sampled rows' last tokens"""
    logits_PV: Tensor | None = None
    tokens_P: Tensor | None = None


class StepGraphs:
    """Graphs of decode rows, which stay on the device from step to step, and of mixed batches, which are sent.

    Args:
        capture: makes a graph of a function in a memory pool.
    """

    def __init__(
        self,
        network: Network,
        attention: AttentionBackend,
        sampler: Sampler,
        state: DeviceState,
        scope: GraphScope,
        *,
        max_rows: int,
        max_tokens: int,
        max_graphs: int | None = None,
        capture: Callable[[Callable[[], Any], Any], Graph] = CapturedGraph,
    ) -> None:
        self.network, self.attention, self.sampler, self.state, self.scope = network, attention, sampler, state, scope
        self.rows = ResidentRows(state, max_rows)
        self.mixed_rows = MixedRows(state, max_tokens, max_rows)
        self.cache = GraphCache(state.device, self._capture, max_graphs)
        self._capture_body = capture
        self._prepared: dict[GraphKey, Any] = {}
        self._prepared_for: dict[GraphKey, list[SamplingParams]] = {}

    @torch.inference_mode()
    def capture(self, key: GraphKey) -> None:
        """Capture `key` ahead of its first use."""
        self.cache.get(key)

    def replay(self, batch: StepBatch, key: GraphKey, params: Sequence[SamplingParams]) -> StepOutputs:
        """Run `batch`, whose sampled rows have `params`, in the graph of `key`."""
        graph = self.cache.get(key)
        changed = True
        if key.mixed:
            self.mixed_rows.load(batch, key)
        else:
            changed = self.rows.load(batch, key)
        if self.scope is GraphScope.STEP and (changed or key not in self._prepared_for):
            padded = [*params, *[_PADDING] * (key.num_rows - len(params))]
            if self._prepared_for.get(key) != padded:
                self._prepared_for.pop(key, None)  # if `prepare` raises, nothing is prepared
                self.sampler.prepare(padded, self._prepared[key])
                self._prepared_for[key] = padded
        outputs: StepOutputs = graph.replay()
        return outputs

    def sampled(self, key: GraphKey, num_rows: int) -> tuple[Tensor, Tensor]:
        """Slots and positions of the last tokens of the sampled rows, after a replay of scope `FORWARD`."""
        slot_P, position_P = self.mixed_rows.sampled(key) if key.mixed else (self.rows.slot_R, self.rows.position_R)
        return slot_P[:num_rows], position_P[:num_rows]

    def feed_back(self, key: GraphKey, tokens_P: Tensor) -> None:
        """What a replay of scope `FORWARD` leaves to do once tokens are sampled."""
        from framework.execution.kernels.cuda.decode_step import feed_back

        slot_P, position_P = self.sampled(key, len(tokens_P))
        feed_back(slot_P, position_P, tokens_P, self.state.token_ids_SL, self.state.num_slots)

    def _capture(self, key: GraphKey, pool: Any) -> Graph:
        if key.mixed:
            self.mixed_rows.clear(key)
        else:
            self.rows.clear()  # the rehearsal below must not move requests on
        if self.scope is GraphScope.STEP:
            self._prepared[key] = self.sampler.prepare([_PADDING] * key.num_rows)
            self._prepared_for.pop(key, None)

        def body() -> StepOutputs:
            return self._body(key)

        body()  # compiles kernels and creates library handles, neither of which can be captured
        if self.state.device.type == "cuda":
            torch.cuda.synchronize(self.state.device)
        return self._capture_body(body, pool)

    def _body(self, key: GraphKey) -> StepOutputs:
        from framework.execution.kernels.cuda.decode_step import feed_back

        state = self.state
        rows = self.mixed_rows.gather(key) if key.mixed else self.rows.gather(key)
        layout, slot_P, position_P = rows.layout, rows.slot_P, rows.position_P
        attend = self.network.attend(self.attention, self.attention.plan(layout))
        hidden_PD = self.network.forward(rows.token_ids_T, layout.positions_T, layout.slot_mapping_T, attend)
        if rows.last_P is not None:
            hidden_PD = hidden_PD[rows.last_P]
        if self.scope is not GraphScope.STEP:
            return StepOutputs(hidden_PD)
        logits_PV = self.network.compute_logits(hidden_PD)
        given_PV = logits_PV if self.sampler.takes_model_dtype else logits_PV.float().clone()
        history = TokenHistory(
            token_ids_RL=state.token_ids_SL[: key.num_rows, :0],
            num_prompt_R=state.num_prompt_S[slot_P],
            num_tokens_R=position_P + 1,
        )
        head, seed_P, prepared = self.network.model.lm_head, state.seed_S[slot_P], self._prepared[key]
        tokens_P = pick_tokens(head, self.sampler, given_PV, prepared, seed_P, position_P + 1, history)
        feed_back(slot_P, position_P, tokens_P, state.token_ids_SL, state.num_slots)
        return StepOutputs(hidden_PD, logits_PV, tokens_P)
