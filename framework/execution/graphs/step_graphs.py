"""Captured steps: the forward pass, or everything from the input gather to the token fed back.

What only some requests ask for has graphs of its own behind the step's, replayed for batches that hold such a
request: the second draw of rows with filters, bias or penalties (`Sampler.redraw`), and log-probabilities.

Shape letters: R rows (padded), P sampled rows (padded), V vocabulary, D model size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.execution.graphs.cache import CapturedGraph, Graph, GraphCache
from framework.execution.graphs.mixed_rows import MixedRows
from framework.execution.kernels.cuda.sampling import MAX_TOP
from framework.execution.step.eager_steps import EagerSteps
from framework.execution.step.logprobs import PackedLogprobs
from framework.execution.step.pick import pick_tokens, redraw_tokens
from framework.execution.step.rows import ResidentRows
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey, GraphScope
from framework.interfaces.sampler import Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.step_runner import StepTokens

_PADDING = SamplingParams(temperature=0)


@dataclass(slots=True)
class StepOutputs:
    """Static memory that the next replay overwrites. Logits and tokens exist only with scope `STEP`."""

    hidden_PD: Tensor
    """The hidden states of the sampled rows' last tokens."""
    logits_PV: Tensor | None = None
    tokens_P: Tensor | None = None


@dataclass(slots=True)
class _KeyGraphs:
    """What is captured for one key, and the memory that it reads."""

    prepared: Any = None
    """The sampler's parameters of the padded rows."""
    prepared_for: list[SamplingParams] = field(default_factory=list)
    num_top_P: Tensor | None = None
    """[P] int32: how many `top_logprobs` each row wants."""
    num_top_for: list[int] = field(default_factory=list)
    outputs: StepOutputs | None = None
    """The outputs of the last run of the step."""
    step: Graph | None = None
    redraw: Graph | None = None
    logprobs: Graph | None = None

    def replay(self) -> StepOutputs:
        assert self.step is not None
        outputs: StepOutputs = self.step.replay()
        return outputs


class StepGraphs:
    """The `StepRunner` of captured steps: graphs of decode rows, which stay on the device from step to step, and of
    mixed batches, which are sent.

    Args:
        eager: what is captured: its network, attention backend and sampler, on its batch state.
        capture: makes a graph of a function in a memory pool.
    """

    def __init__(
        self,
        eager: EagerSteps,
        scope: GraphScope,
        *,
        max_rows: int,
        max_tokens: int,
        max_graphs: int | None = None,
        capture: Callable[[Callable[[], Any], Any], Graph] = CapturedGraph,
    ) -> None:
        self.network, self.attention, self.scope = eager.network, eager.attention, scope
        self.state = state = eager.state
        self.sampling, self.sampler = eager.sampling, eager.sampling.sampler
        self.rows = ResidentRows(state, max_rows)
        self.mixed_rows = MixedRows(state, max_tokens, max_rows)
        self.cache = GraphCache(state.device, self._capture, max_graphs)
        self._capture_body = capture

    @torch.inference_mode()
    def capture(self, key: GraphKey) -> None:
        """Capture `key` ahead of its first use."""
        self.cache.get(key)

    def run(self, batch: StepBatch, key: GraphKey | None) -> StepTokens:
        assert key is not None
        sampling, slots = self.sampling, batch.slots
        if not all(batch.samples):
            slots = [slot for slot, samples in zip(slots, batch.samples, strict=True) if samples]
        outputs = self.replay(batch, key, sampling.params(slots), redraws=sampling.redraws(slots))
        num_rows = len(slots)
        if not num_rows:
            return StepTokens()
        if outputs.tokens_P is not None:
            assert outputs.logits_PV is not None
            tokens_P = outputs.tokens_P[:num_rows]
            num_top = sampling.num_top(slots)
            if num_top is None:
                return StepTokens(tokens_P)
            if max(count or 0 for count in num_top) > MAX_TOP:
                return StepTokens(tokens_P, sampling.logprobs(outputs.logits_PV[:num_rows], tokens_P, num_top))
            counts = sampling.counts(num_top)
            return StepTokens(tokens_P, PackedLogprobs.of(self.replay_logprobs(key, counts), tokens_P, counts))
        slot_P, position_P = self.sampled(key, num_rows)
        max_position = max(start + num for start, num in zip(batch.starts, batch.row_tokens, strict=True))
        hidden_PD = outputs.hidden_PD[:num_rows]
        tokens_P, logprobs = sampling.sample(hidden_PD, slots, slot_P, position_P + 1, max_position=max_position)
        self.feed_back(key, tokens_P)
        return StepTokens(tokens_P, logprobs)

    def slots_changed(self) -> None:
        self.rows.invalidate()

    def release(self) -> None:
        self.cache.close()

    def effective(self) -> dict[str, object]:
        return self.cache.effective()

    def replay(
        self, batch: StepBatch, key: GraphKey, params: Sequence[SamplingParams], *, redraws: bool
    ) -> StepOutputs:
        """Run `batch`, whose sampled rows have `params`, in the graph of `key`.

        Args:
            redraws: some of them gets its token from `Sampler.redraw`.
        """
        graphs = self.cache.get(key)
        changed = True
        if key.mixed:
            self.mixed_rows.load(batch, key)
        else:
            changed = self.rows.load(batch, key)
        if self.scope is GraphScope.STEP and (changed or not graphs.prepared_for):
            padded = [*params, *[_PADDING] * (key.num_rows - len(params))]
            if graphs.prepared_for != padded:
                graphs.prepared_for = []  # if `prepare` raises, nothing is prepared
                self.sampler.prepare(padded, graphs.prepared)
                graphs.prepared_for = padded
        outputs = graphs.replay()
        if redraws and self.scope is GraphScope.STEP:
            assert graphs.redraw is not None
            graphs.redraw.replay()
        return outputs

    def replay_logprobs(self, key: GraphKey, counts: list[int]) -> Tensor:
        """What `top_logprobs` gives for the replay before, whose sampled rows want `counts`, -1 for nothing."""
        graphs = self.cache.get(key)
        assert graphs.num_top_P is not None
        assert graphs.logprobs is not None
        padded = [*counts, *[-1] * (key.num_rows - len(counts))]
        if graphs.num_top_for != padded:
            graphs.num_top_P.copy_(self.state.staging.send([np.array(padded)])[0])
            graphs.num_top_for = padded
        packed_PW: Tensor = graphs.logprobs.replay()
        return packed_PW[: len(counts)]

    def sampled(self, key: GraphKey, num_rows: int) -> tuple[Tensor, Tensor]:
        """Slots and positions of the last tokens of the sampled rows, after a replay of scope `FORWARD`."""
        slot_P, position_P = self.mixed_rows.sampled(key) if key.mixed else (self.rows.slot_R, self.rows.position_R)
        return slot_P[:num_rows], position_P[:num_rows]

    def feed_back(self, key: GraphKey, tokens_P: Tensor) -> None:
        """What a replay of scope `FORWARD` leaves to do once tokens are sampled."""
        from framework.execution.kernels.cuda.decode_step import feed_back

        slot_P, position_P = self.sampled(key, len(tokens_P))
        feed_back(slot_P, position_P, tokens_P, self.state.token_ids_SL, self.state.num_slots)

    def _capture(self, key: GraphKey, pool: Any) -> _KeyGraphs:
        if key.mixed:
            self.mixed_rows.clear(key)
        else:
            self.rows.clear()  # the rehearsal below must not move requests on
        graphs = _KeyGraphs()
        if self.scope is GraphScope.STEP:
            graphs.prepared = self.sampler.prepare([_PADDING] * key.num_rows)
            graphs.num_top_P = torch.full((key.num_rows,), -1, dtype=torch.int32, device=self.state.device)
        graphs.step = self._captured(lambda: self._step(key, graphs), pool)
        if self.scope is GraphScope.STEP:
            if type(self.sampler).redraw is not Sampler.redraw:
                graphs.redraw = self._captured(lambda: self._redraw(key, graphs), pool)
            graphs.logprobs = self._captured(lambda: self._logprobs(graphs), pool)
        return graphs

    def _captured(self, body: Callable[[], Any], pool: Any) -> Graph:
        body()  # compiles kernels and creates library handles, neither of which can be captured
        if self.state.device.type == "cuda":
            torch.cuda.synchronize(self.state.device)
        return self._capture_body(body, pool)

    def _step(self, key: GraphKey, graphs: _KeyGraphs) -> StepOutputs:
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
        head, seed_P, next_P = self.network.model.lm_head, state.seed_S[slot_P], position_P + 1
        history = self._history(slot_P, next_P)
        tokens_P = pick_tokens(head, self.sampler, given_PV, graphs.prepared, seed_P, next_P, history)
        feed_back(slot_P, position_P, tokens_P, state.token_ids_SL, state.num_slots)
        graphs.outputs = StepOutputs(hidden_PD, logits_PV, tokens_P)
        return graphs.outputs

    def _redraw(self, key: GraphKey, graphs: _KeyGraphs) -> None:
        """The second draw of some rows, over what `_step` sampled; their positions have moved on."""
        from framework.execution.kernels.cuda.decode_step import feed_back_again

        slot_P, position_P = self.sampled(key, key.num_rows)
        tokens_P, logits_PV = _sampled_outputs(graphs)
        head, seed_P, state = self.network.model.lm_head, self.state.seed_S[slot_P], self.state
        history = self._history(slot_P, position_P)
        drawn_P = redraw_tokens(head, self.sampler, logits_PV, graphs.prepared, seed_P, position_P, history, tokens_P)
        tokens_P.copy_(drawn_P)
        feed_back_again(slot_P, position_P, drawn_P, state.token_ids_SL, state.num_slots)

    def _logprobs(self, graphs: _KeyGraphs) -> Tensor:
        from framework.execution.kernels.cuda.sampling.top_logprobs import top_logprobs

        tokens_P, logits_PV = _sampled_outputs(graphs)
        head = self.network.model.lm_head
        assert graphs.num_top_P is not None
        return top_logprobs(head.gather(logits_PV) if head.split else logits_PV, tokens_P, graphs.num_top_P)

    def _history(self, slot_P: Tensor, num_tokens_P: Tensor) -> TokenHistory:
        return TokenHistory(
            token_ids_SL=self.state.token_ids_SL,
            num_prompt_S=self.state.num_prompt_S,
            slot_R=slot_P,
            num_tokens_R=num_tokens_P,
        )


def _sampled_outputs(graphs: _KeyGraphs) -> tuple[Tensor, Tensor]:
    outputs = graphs.outputs
    assert outputs is not None
    assert outputs.tokens_P is not None
    assert outputs.logits_PV is not None
    return outputs.tokens_P, outputs.logits_PV
