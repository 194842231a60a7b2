"""Launches sealed steps on one device: inputs from the batch state, model, logits, sampling, token fed back.

Shape letters: T tokens of the step, R rows of the step, P sampled rows, S slots, L positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.execution.graphs.piece_graphs import PieceGraphs
from framework.execution.graphs.select_graph import graph_name, select_graph
from framework.execution.graphs.step_graphs import StepGraphs
from framework.execution.kernels.cuda.sampling import MAX_TOP
from framework.execution.step.device_state import DeviceState
from framework.execution.step.logprobs import DeviceLogprobs, PackedLogprobs, StepLogprobs, counts_of
from framework.execution.step.network import Network
from framework.execution.step.pending import PendingStep, Readback
from framework.execution.step.pick import pick_tokens, redraw_tokens, whole_rows
from framework.execution.step.step_inputs import StepInputs
from framework.interfaces.attention import AttentionBackend
from framework.interfaces.errors import PluginError
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey, GraphStrategy
from framework.interfaces.sampler import NOT_FINITE, Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams


class Runner:
    """Network, batch state and graphs of one rank."""

    def __init__(
        self,
        network: Network,
        attention: AttentionBackend,
        sampler: Sampler,
        state: DeviceState,
        graphs: StepGraphs | PieceGraphs | None,
        strategy: GraphStrategy,
    ) -> None:
        self.network, self.attention, self.sampler, self.state = network, attention, sampler, state
        self.graphs, self._strategy = graphs, strategy
        self._head = network.model.lm_head
        self._vocab_size = network.model.config.vocab_size
        self._params = [SamplingParams()] * state.num_slots
        self._redrawn_slots: set[int] = set()
        """Slots of requests whose rows the sampler redraws."""
        self._logprob_slots: set[int] = set()
        """Slots of requests that ask for log-probabilities."""
        self._sampled_slots: list[int] = []
        self._prepared: Any = None
        self._readbacks: list[Readback] = []

    def release_graphs(self) -> None:
        """Destroy the captured graphs. No step may follow. Calling it again does nothing."""
        if self.graphs is not None:
            self.graphs.cache.clear()

    def close(self) -> None:
        """Let go of the graphs. They and their cache refer to each other, and the memory must not wait for a garbage
        collection."""
        if self.graphs is not None:
            del self.graphs.cache
        self.graphs = None

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> PendingStep:
        """Enqueue `batch` behind all earlier steps, without waiting for any of them on a GPU."""
        readback = self._readbacks.pop() if self._readbacks else Readback(self.state.device, self.state.num_slots)
        readback.begin()
        self.state.apply(batch)
        for admission in batch.admissions:
            self._admit(admission.slot, admission.params)
        if batch.admissions:
            self._sampled_slots = []  # a slot may be another request's now
            if isinstance(self.graphs, StepGraphs):
                self.graphs.rows.invalidate()
        key = None if self.graphs is None else select_graph(self._strategy, batch)
        if key is None:
            tokens_P, logprobs = self._run_eager(batch, None)
        elif isinstance(self.graphs, StepGraphs):
            tokens_P, logprobs = self._replay(self.graphs, batch, key)
        else:
            tokens_P, logprobs = self._run_eager(batch, key)
        readback.end(tokens_P)
        return PendingStep(
            batch.step,
            readback,
            check=self._check_range,
            dtype=str(self.attention.spec.dtype).removeprefix("torch."),
            release=self._readbacks.append,
            logprobs=logprobs,
            graph_key=graph_name(self._strategy.scope, key),
            num_padding_tokens=key.num_tokens - batch.num_tokens if key else 0,
        )

    def _admit(self, slot: int, params: SamplingParams) -> None:
        self._params[slot] = params
        for slots, asks in (
            (self._redrawn_slots, self.sampler.redraws(params)),
            (self._logprob_slots, params.logprobs is not None),
        ):
            slots.add(slot) if asks else slots.discard(slot)

    def _run_eager(self, batch: StepBatch, key: GraphKey | None) -> tuple[Tensor | None, StepLogprobs | None]:
        inputs = StepInputs.of(batch, self.state)
        layout = inputs.layout
        attend = self.network.attend(self.attention, self.attention.plan(layout))
        if key is None:
            hidden_TD = self.network.forward(inputs.token_ids_T, layout.positions_T, layout.slot_mapping_T, attend)
        else:
            assert isinstance(self.graphs, PieceGraphs)
            hidden_TD = self.graphs.run(key, inputs.token_ids_T, layout, attend)
        if not inputs.sampled_slots:
            return None, None
        hidden_PD = hidden_TD if len(inputs.sampled_slots) == batch.num_tokens else hidden_TD[inputs.last_P]
        slot_P, position_P = inputs.slot_P, inputs.position_P
        tokens_P, logprobs = self._sample(
            hidden_PD, inputs.sampled_slots, slot_P, position_P, max_position=inputs.max_position
        )
        self.state.token_ids_SL[slot_P, position_P] = tokens_P.clamp(min=0).int()  # NOT_FINITE is below 0
        return tokens_P, logprobs

    def _replay(self, graphs: StepGraphs, batch: StepBatch, key: GraphKey) -> tuple[Tensor | None, StepLogprobs | None]:
        slots = batch.slots
        if not all(batch.samples):
            slots = [slot for slot, samples in zip(slots, batch.samples, strict=True) if samples]
        params = [self._params[slot] for slot in slots]
        outputs = graphs.replay(batch, key, params, redraws=not self._redrawn_slots.isdisjoint(slots))
        num_rows = len(slots)
        if not num_rows:
            return None, None
        if outputs.tokens_P is not None:
            assert outputs.logits_PV is not None
            tokens_P = outputs.tokens_P[:num_rows]
            num_top = self._num_top(slots)
            if num_top is None:
                return tokens_P, None
            if max(count or 0 for count in num_top) > MAX_TOP:
                return tokens_P, self._logprobs(outputs.logits_PV[:num_rows], tokens_P, num_top)
            counts = counts_of(num_top, self._vocab_size)
            return tokens_P, PackedLogprobs.of(graphs.replay_logprobs(key, counts), tokens_P, counts)
        slot_P, position_P = graphs.sampled(key, num_rows)
        max_position = max(start + num for start, num in zip(batch.starts, batch.row_tokens, strict=True))
        hidden_PD = outputs.hidden_PD[:num_rows]
        tokens_P, logprobs = self._sample(hidden_PD, slots, slot_P, position_P + 1, max_position=max_position)
        graphs.feed_back(key, tokens_P)
        return tokens_P, logprobs

    def _sample(
        self, hidden_PD: Tensor, slots: list[int], slot_P: Tensor, position_P: Tensor, *, max_position: int
    ) -> tuple[Tensor, StepLogprobs | None]:
        head, sampler, state = self._head, self.sampler, self.state
        logits_PV = self.network.compute_logits(hidden_PD)
        if not sampler.takes_model_dtype:
            logits_PV = logits_PV.float()
        num_top = self._num_top(slots)
        keeps = num_top is None or sampler.takes_model_dtype
        raw_PV = logits_PV if keeps else logits_PV.clone()  # the sampler may overwrite its input
        if slots != self._sampled_slots:
            self._prepared = sampler.prepare([self._params[slot] for slot in slots])
            self._sampled_slots = slots
        history = TokenHistory(
            token_ids_SL=state.token_ids_SL[:, :max_position],
            num_prompt_S=state.num_prompt_S,
            slot_R=slot_P,
            num_tokens_R=position_P,
        )
        prepared, seed_P = self._prepared, state.seed_S[slot_P]
        tokens_P = pick_tokens(head, sampler, logits_PV, prepared, seed_P, position_P, history)
        if not self._redrawn_slots.isdisjoint(slots):
            tokens_P = redraw_tokens(head, sampler, logits_PV, prepared, seed_P, position_P, history, tokens_P)
        return tokens_P, None if num_top is None else self._logprobs(raw_PV, tokens_P, num_top)

    def _num_top(self, slots: list[int]) -> list[int | None] | None:
        """How many log-probabilities each row wants; None if no row wants any."""
        if self._logprob_slots.isdisjoint(slots):
            return None
        return [self._params[slot].logprobs for slot in slots]

    def _logprobs(self, logits_PV: Tensor, tokens_P: Tensor, num_top: list[int | None]) -> StepLogprobs | None:
        if not logits_PV.is_cuda or max(count or 0 for count in num_top) > MAX_TOP:
            return DeviceLogprobs.of(logits_PV, tokens_P, num_top, whole_rows(self._head))
        from framework.execution.kernels.cuda.sampling.top_logprobs import top_logprobs

        counts = counts_of(num_top, self._vocab_size)
        (count_P,) = self.state.staging.send([np.array(counts)])
        whole_PV = self._head.gather(logits_PV) if self._head.split else logits_PV
        return PackedLogprobs.of(top_logprobs(whole_PV, tokens_P, count_P.int()), tokens_P, counts)

    def _check_range(self, token_ids: list[int]) -> None:
        if min(token_ids) >= 0 and max(token_ids) < self._vocab_size:
            return
        bad = next((token for token in token_ids if not 0 <= token < self._vocab_size and token != NOT_FINITE), None)
        if bad is not None:
            raise PluginError(
                f"sampler {type(self.sampler).__name__} sampled token id {bad}; the vocabulary has {self._vocab_size}"
            )
