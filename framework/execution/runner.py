"""Runs one sealed step on one device: inputs from the batch state, model, logits, sampling, token fed back.

Shape letters: T tokens of the step, R rows of the step, P sampled rows, S slots, L positions, V vocabulary.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.errors import PluginError
from framework.execution.device_state import DeviceState
from framework.execution.executor import StepBatch, StepResult
from framework.execution.logprobs import token_logprobs
from framework.interfaces.attention import AttentionBackend, BatchLayout
from framework.interfaces.sampler import Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams
from framework.models.decoder import DecoderLM


class Runner:
    """Model, KV memory and batch state of one rank."""

    def __init__(
        self,
        model: DecoderLM,
        attention: AttentionBackend,
        sampler: Sampler,
        state: DeviceState,
        *,
        num_blocks: int,
        block_size: int,
    ) -> None:
        self.model, self.attention, self.sampler, self.state = model, attention, sampler, state
        self.block_size = block_size
        spec = attention.spec
        shape = attention.kv_cache_shape(num_blocks)
        # Not zeroed: untouched memory costs nothing on a CPU, and no backend may read a slot that was never written.
        self.kv_caches = [
            torch.empty(shape, dtype=spec.kv_dtype, device=spec.device) for _ in range(model.config.num_layers)
        ]
        self._params = [SamplingParams()] * state.token_ids_SL.shape[0]
        self._sampled_slots: list[int] = []
        self._prepared: Any = None

    @torch.inference_mode()
    def run(self, batch: StepBatch) -> StepResult:
        """Run `batch` to its end."""
        started = time.perf_counter()
        self.state.apply(batch)
        for admission in batch.admissions:
            self._params[admission.slot] = admission.params
        slot_T, layout = self._layout(batch)
        metadata = self.attention.plan(layout)

        def attend(layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor) -> Tensor:
            return self.attention.forward(layer, q_TNH, k_TMH, v_TMH, self.kv_caches[layer], metadata)

        token_ids_T = self.state.token_ids_SL[slot_T, layout.positions_T]
        hidden_TD = self.model(token_ids_T, layout.positions_T, attend)
        result = StepResult(step=batch.step, token_ids=[])
        if any(batch.samples):
            self._sample(batch, layout, hidden_TD, result)
        result.run_s = time.perf_counter() - started
        return result

    def _layout(self, batch: StepBatch) -> tuple[Tensor, BatchLayout]:
        device = self.state.device
        counts, starts = np.array(batch.row_tokens), np.array(batch.starts)
        query_start = np.zeros(len(counts) + 1, dtype=np.int32)
        np.cumsum(counts, out=query_start[1:])
        slot_R = np.array(batch.slots)
        positions = np.arange(batch.num_tokens) + np.repeat(starts - query_start[:-1], counts)
        slot_T = torch.from_numpy(np.repeat(slot_R, counts)).to(device)
        positions_T = torch.from_numpy(positions).to(device)
        seq_lens = (starts + counts).astype(np.int32)
        table = self.state.block_table_SB
        num_columns = -(-int(seq_lens.max()) // self.block_size)
        block_T = table[slot_T, positions_T // self.block_size].long()
        layout = BatchLayout(
            num_rows=len(counts),
            num_tokens=batch.num_tokens,
            num_decode_rows=batch.num_decode_rows,
            query_start_R1=torch.from_numpy(query_start).to(device),
            seq_lens_R=torch.from_numpy(seq_lens).to(device),
            block_table_RB=table[torch.from_numpy(slot_R).to(device), :num_columns],
            slot_mapping_T=block_T * self.block_size + positions_T % self.block_size,
            positions_T=positions_T,
            query_start_host=query_start.tolist(),
            seq_lens_host=seq_lens.tolist(),
        )
        return slot_T, layout

    def _sample(self, batch: StepBatch, layout: BatchLayout, hidden_TD: Tensor, result: StepResult) -> None:
        state, device = self.state, self.state.device
        rows = [row for row, sampled in enumerate(batch.samples) if sampled]
        slots = [batch.slots[row] for row in rows]
        last_P = torch.tensor([layout.query_start_host[row + 1] - 1 for row in rows], device=device)
        slot_P = torch.tensor(slots, device=device)
        position_P = torch.tensor([layout.seq_lens_host[row] for row in rows], device=device)
        logits_PV = self.model.compute_logits(hidden_TD if len(rows) == batch.num_tokens else hidden_TD[last_P])
        params = [self._params[slot] for slot in slots]
        num_top = [one.logprobs for one in params]
        wants_logprobs = any(count is not None for count in num_top)
        raw_PV = logits_PV.clone() if wants_logprobs else logits_PV  # the sampler may overwrite its input
        if batch.admissions or slots != self._sampled_slots:
            self._prepared = self.sampler.prepare(params)
            self._sampled_slots = slots
        history = self._history(params, slot_P, position_P)
        tokens_P = self.sampler.sample(logits_PV, self._prepared, state.seed_S[slot_P], position_P, history)
        if tokens_P.shape != position_P.shape:
            raise PluginError(
                f"sampler {type(self.sampler).__name__} returned shape {tuple(tokens_P.shape)} for {len(rows)} rows; "
                f"the rule is one token id a row"
            )
        state.token_ids_SL[slot_P, position_P] = tokens_P.int()
        result.token_ids = tokens_P.tolist()
        self._check_range(result.token_ids)
        if wants_logprobs:
            result.logprobs = token_logprobs(raw_PV, tokens_P, num_top)

    def _history(self, params: list[SamplingParams], slot_P: Tensor, position_P: Tensor) -> TokenHistory:
        state = self.state
        length = int(position_P.max()) if any(one.has_penalties for one in params) else 0
        tokens_PL = state.token_ids_SL[slot_P, :length]
        return TokenHistory(token_ids_RL=tokens_PL, num_prompt_R=state.num_prompt_S[slot_P], num_tokens_R=position_P)

    def _check_range(self, token_ids: list[int]) -> None:
        vocab_size = self.model.config.vocab_size
        if min(token_ids) < 0 or max(token_ids) >= vocab_size:
            bad = next(token for token in token_ids if not 0 <= token < vocab_size)
            raise PluginError(
                f"sampler {type(self.sampler).__name__} sampled token id {bad}; the vocabulary has {vocab_size}"
            )
