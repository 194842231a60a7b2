"""Sampling outside graphs: what the request of each slot asks for, and the tokens of hidden states.

Shape letters: P sampled rows, D model size, V vocabulary, S slots, L positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from framework.execution.kernels.cuda.sampling import MAX_TOP
from framework.execution.step.device_state import DeviceState
from framework.execution.step.logprobs import DeviceLogprobs, PackedLogprobs, counts_of
from framework.execution.step.network import Network
from framework.execution.step.pick import pick_tokens, redraw_tokens, whole_rows
from framework.execution.step.prompt_logprobs import PromptPart, parts_of
from framework.interfaces.executor import Admission, StepBatch
from framework.interfaces.sampler import Sampler, TokenHistory
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.step_runner import StepLogprobs


class Sampling:
    """The sampler of one rank, with the parameters of every slot."""

    def __init__(self, network: Network, sampler: Sampler, state: DeviceState) -> None:
        self.sampler, self._network, self._state = sampler, network, state
        self._head = network.model.lm_head
        self._vocab_size = network.model.config.vocab_size
        self._params = [SamplingParams()] * state.num_slots
        self._redrawn_slots: set[int] = set()
        """Slots of requests whose rows the sampler redraws."""
        self._logprob_slots: set[int] = set()
        """Slots of requests that ask for log-probabilities."""
        self._prompt_slots: dict[int, tuple[int, int]] = {}
        """Slots of requests that ask for the log-probabilities of their prompts, with the length of the prompt and the
        number of most likely tokens."""
        self._prepared: Any = None
        self._prepared_slots: list[int] = []

    def admit(self, admissions: Sequence[Admission]) -> None:
        """From now on the slots of `admissions` belong to their requests."""
        for admission in admissions:
            slot, params = admission.slot, admission.params
            self._params[slot] = params
            for slots, asks in (
                (self._redrawn_slots, self.sampler.redraws(params)),
                (self._logprob_slots, params.logprobs is not None),
            ):
                slots.add(slot) if asks else slots.discard(slot)
            self._prompt_slots.pop(slot, None)
            if params.prompt_logprobs is not None:
                self._prompt_slots[slot] = admission.num_prompt, params.prompt_logprobs
        self._prepared_slots = []

    def prompt_parts(self, batch: StepBatch) -> list[PromptPart]:
        """The prompt tokens whose log-probabilities are wanted and can be had from the hidden states of `batch`."""
        return parts_of(batch, self._prompt_slots) if self._prompt_slots else []

    def whole_logits(self, hidden_RD: Tensor) -> Tensor:
        """Logits [R, V] of the whole vocabulary, on every rank."""
        logits_RV = self._network.compute_logits(hidden_RD)
        return self._head.gather(logits_RV) if self._head.split else logits_RV

    def params(self, slots: Sequence[int]) -> list[SamplingParams]:
        """What the requests of `slots` ask for."""
        return [self._params[slot] for slot in slots]

    def redraws(self, slots: Sequence[int]) -> bool:
        """Whether some row of `slots` gets its token from `Sampler.redraw`."""
        return not self._redrawn_slots.isdisjoint(slots)

    def num_top(self, slots: Sequence[int]) -> list[int | None] | None:
        """How many log-probabilities each row wants; None if no row wants any."""
        if self._logprob_slots.isdisjoint(slots):
            return None
        return [self._params[slot].logprobs for slot in slots]

    def sample(
        self, hidden_PD: Tensor, slots: list[int], slot_P: Tensor, position_P: Tensor, *, max_position: int
    ) -> tuple[Tensor, StepLogprobs | None]:
        """Token ids [P] int64 of the rows whose last hidden states are `hidden_PD`, and their log-probabilities.

        Args:
            slots: the rows' slots on the host, as `slot_P` has them on the device.
            position_P: [P] int64, the positions that the sampled tokens will have.
            max_position: an upper bound of `position_P`.
        """
        head, sampler, state = self._head, self.sampler, self._state
        logits_PV = self._network.compute_logits(hidden_PD)
        if not sampler.takes_model_dtype:
            logits_PV = logits_PV.float()
        num_top = self.num_top(slots)
        keeps = num_top is None or sampler.takes_model_dtype
        raw_PV = logits_PV if keeps else logits_PV.clone()  # the sampler may overwrite its input
        if slots != self._prepared_slots:
            self._prepared = sampler.prepare(self.params(slots))
            self._prepared_slots = slots
        history = TokenHistory(
            token_ids_SL=state.token_ids_SL[:, :max_position],
            num_prompt_S=state.num_prompt_S,
            slot_R=slot_P,
            num_tokens_R=position_P,
        )
        prepared, seed_P = self._prepared, state.seed_S[slot_P]
        tokens_P = pick_tokens(head, sampler, logits_PV, prepared, seed_P, position_P, history)
        if self.redraws(slots):
            tokens_P = redraw_tokens(head, sampler, logits_PV, prepared, seed_P, position_P, history, tokens_P)
        return tokens_P, None if num_top is None else self.logprobs(raw_PV, tokens_P, num_top)

    def logprobs(self, logits_PV: Tensor, tokens_P: Tensor, num_top: list[int | None]) -> StepLogprobs | None:
        """The log-probabilities that `num_top` asks for. The logits are the model's, before any sampler."""
        if not logits_PV.is_cuda or max(count or 0 for count in num_top) > MAX_TOP:
            return DeviceLogprobs.of(logits_PV, tokens_P, num_top, whole_rows(self._head))
        from framework.execution.kernels.cuda.sampling.top_logprobs import top_logprobs

        counts = self.counts(num_top)
        (count_P,) = self._state.staging.send([np.array(counts)])
        whole_PV = self._head.gather(logits_PV) if self._head.split else logits_PV
        return PackedLogprobs.of(top_logprobs(whole_PV, tokens_P, count_P.int()), tokens_P, counts)

    def counts(self, num_top: Sequence[int | None]) -> list[int]:
        """`num_top` as the kernel takes it."""
        return counts_of(num_top, self._vocab_size)
