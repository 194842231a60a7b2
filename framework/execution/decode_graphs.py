"""Captured steps of decode rows: the forward pass, or everything from the input gather to the token fed back.

Shape letters: R rows (padded), V vocabulary, D model size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framework.execution.device_state import DeviceState
from framework.execution.executor import StepBatch
from framework.execution.graphs import CapturedGraph, Graph, GraphCache
from framework.execution.network import Network
from framework.execution.pick import pick_tokens
from framework.execution.rows import ResidentRows
from framework.interfaces.attention import AttentionBackend, BatchLayout
from framework.interfaces.graph import GraphKey, GraphScope
from framework.interfaces.sampler import Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams

_PADDING = SamplingParams(temperature=0)


@dataclass(slots=True)
class DecodeOutputs:
    """Static memory that the next replay overwrites; logits and tokens only with scope `STEP`."""

    hidden_RD: Tensor
    logits_RV: Tensor | None = None
    tokens_R: Tensor | None = None


class DecodeGraphs:
    """Graphs of decode batches over resident rows.

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
        max_rows: int,
        *,
        max_graphs: int | None = None,
        capture: Callable[[Callable[[], Any], Any], Graph] = CapturedGraph,
    ) -> None:
        self.network, self.attention, self.sampler, self.state, self.scope = network, attention, sampler, state, scope
        self.rows = ResidentRows(state, max_rows)
        self.cache = GraphCache(state.device, self._capture, max_graphs)
        self._capture_body = capture
        self._prepared: dict[GraphKey, Any] = {}
        self._prepared_for: tuple[GraphKey, list[SamplingParams]] | None = None

    @torch.inference_mode()
    def capture(self, key: GraphKey) -> None:
        """Capture `key` ahead of its first use."""
        self.cache.get(key)

    def replay(self, batch: StepBatch, key: GraphKey, params: Sequence[SamplingParams]) -> DecodeOutputs:
        """Run `batch`, whose rows have `params`, in the graph of `key`."""
        graph = self.cache.get(key)
        changed = self.rows.load(batch, key.num_rows)
        if self.scope is GraphScope.STEP and (changed or self._prepared_for is None):
            padded = [*params, *[_PADDING] * (key.num_rows - len(params))]
            if self._prepared_for != (key, padded):
                self.sampler.prepare(padded, self._prepared[key])
                self._prepared_for = (key, padded)
        outputs: DecodeOutputs = graph.replay()
        return outputs

    def feed_back(self, num_rows: int, tokens_R: Tensor) -> None:
        """What a replay of scope `FORWARD` leaves to do once tokens are sampled."""
        from framework.kernels.cuda.decode_step import feed_back

        state, rows = self.state, self.rows
        feed_back(rows.slot_R[:num_rows], rows.position_R[:num_rows], tokens_R, state.token_ids_SL, state.num_slots)

    def _capture(self, key: GraphKey, pool: Any) -> Graph:
        self.rows.clear()  # the rehearsal below must not move requests on
        if self.scope is GraphScope.STEP:
            self._prepared[key] = self.sampler.prepare([_PADDING] * key.num_rows)
            self._prepared_for = None

        def body() -> DecodeOutputs:
            return self._body(key.num_rows, self._prepared.get(key))

        body()  # compiles kernels and creates library handles, neither of which can be captured
        if self.state.device.type == "cuda":
            torch.cuda.synchronize(self.state.device)
        return self._capture_body(body, pool)

    def _body(self, num_rows: int, prepared: Any) -> DecodeOutputs:
        from framework.kernels.cuda.decode_step import decode_inputs, feed_back

        state, rows = self.state, self.rows
        slot_R, position_R, token_R = rows.slot_R[:num_rows], rows.position_R[:num_rows], rows.token_R[:num_rows]
        layout = BatchLayout(
            num_rows=num_rows,
            num_tokens=num_rows,
            num_decode_rows=num_rows,
            query_start_R1=rows.query_start_R1[: num_rows + 1],
            seq_lens_R=rows.seq_lens_R[:num_rows],
            block_table_RB=rows.block_table_RB[:num_rows],
            slot_mapping_T=rows.slot_mapping_R[:num_rows],
            positions_T=position_R,
            query_start_host=[],
            seq_lens_host=[],
        )
        decode_inputs(
            slot_R,
            position_R,
            state.token_ids_SL,
            state.block_table_SB,
            state.block_size,
            state.num_slots,
            token_R=token_R,
            seq_lens_R=layout.seq_lens_R,
            slot_mapping_R=layout.slot_mapping_T,
            block_table_RB=layout.block_table_RB,
        )
        attend = self.network.attend(self.attention, self.attention.plan(layout))
        hidden_RD = self.network.forward(token_R, position_R, layout.slot_mapping_T, attend)
        if self.scope is not GraphScope.STEP:
            return DecodeOutputs(hidden_RD)
        logits_RV = self.network.compute_logits(hidden_RD)
        given_RV = logits_RV if self.sampler.takes_model_dtype else logits_RV.float().clone()
        history = TokenHistory(
            token_ids_RL=state.token_ids_SL[:num_rows, :0],
            num_prompt_R=state.num_prompt_S[slot_R],
            num_tokens_R=position_R,
        )
        head, seed_R = self.network.model.lm_head, state.seed_S[slot_R]
        tokens_R = pick_tokens(head, self.sampler, given_RV, prepared, seed_R, position_R + 1, history)
        feed_back(slot_R, position_R, tokens_R, state.token_ids_SL, state.num_slots)
        return DecodeOutputs(hidden_RD, logits_RV, tokens_R)
