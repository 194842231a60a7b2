"""Log-probabilities of prompt tokens, for the rows of a step that ask and no others.

Shape letters: T tokens of the step, A tokens whose log-probability is wanted, K most likely tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framework.execution.step.device_state import DeviceState
from framework.execution.step.logprobs import to_pinned
from framework.interfaces.executor import StepBatch, TokenLogprobs

_MAX_ROWS = 128
"""Logits that exist at a time. A chunk of 2,000 tokens would need a gigabyte for them."""


@dataclass(slots=True, frozen=True)
class PromptPart:
    """The tokens of one prompt whose log-probabilities a step can give: those after the positions that it computes."""

    row: int
    slot: int
    first: int
    """Position of the first of these tokens."""
    count: int
    at: int
    """Index in the step of the position before it."""
    num_top: int


def parts_of(batch: StepBatch, asking: Mapping[int, tuple[int, int]]) -> list[PromptPart]:
    """What `batch` can give to the slots of `asking`, which holds the length of the prompt and the number of most
    likely tokens for each."""
    parts, at = [], 0
    for row, (slot, start, num) in enumerate(zip(batch.slots, batch.starts, batch.row_tokens, strict=True)):
        if slot in asking:
            num_prompt, num_top = asking[slot]
            count = min(start + num, num_prompt - 1) - start
            if count > 0:
                parts.append(PromptPart(row, slot, start + 1, count, at, num_top))
        at += num
    return parts


@dataclass(slots=True)
class PromptLogprobs:
    """Log-probabilities of a step's prompt tokens, on their way to the host."""

    parts: Sequence[PromptPart]
    token_A: Tensor
    logprob_A: Tensor
    rank_A: Tensor
    top_token_AK: Tensor
    top_logprob_AK: Tensor

    @classmethod
    def of(
        cls,
        parts: Sequence[PromptPart],
        hidden_TD: Tensor,
        state: DeviceState,
        compute_logits: Callable[[Tensor], Tensor],
    ) -> PromptLogprobs:
        """Queue the computation without waiting for the device.

        Args:
            parts: at least one, the result of `parts_of`.
            hidden_TD: normalised hidden states of the step.
            compute_logits: makes logits [R, V] of the whole vocabulary from hidden states [R, D].
        """
        where = np.concatenate([np.arange(part.at, part.at + part.count) for part in parts])
        slots = np.repeat([part.slot for part in parts], [part.count for part in parts])
        positions = np.concatenate([np.arange(part.first, part.first + part.count) for part in parts])
        where_A, slot_A, position_A = state.staging.send([where, slots, positions])
        token_A = state.token_ids_SL[slot_A, position_A].long()
        most = max(part.num_top for part in parts)
        chunks = []
        for begin in range(0, len(where), _MAX_ROWS):
            chunk = slice(begin, begin + _MAX_ROWS)
            all_CV = compute_logits(hidden_TD[where_A[chunk]]).float().log_softmax(-1)
            own_C1 = all_CV.gather(1, token_A[chunk].unsqueeze(1))
            rank_C = (all_CV > own_C1).sum(-1) + 1
            top_CK = all_CV.topk(min(most, all_CV.shape[1]))
            chunks.append((own_C1.squeeze(1), rank_C, top_CK.indices, top_CK.values))
        return cls(parts, *map(to_pinned, (token_A, *(torch.cat(pieces) for pieces in zip(*chunks, strict=True)))))

    def to_host(self) -> dict[int, tuple[int, list[TokenLogprobs]]]:
        """Row of the step -> position of its first token, and an entry per token. Call it after the end of the step."""
        columns = (self.token_A, self.logprob_A, self.rank_A, self.top_token_AK, self.top_logprob_AK)
        entries = zip(*(column.tolist() for column in columns), strict=True)
        found = {}
        for part in self.parts:
            of_part = []
            for _ in range(part.count):
                token, logprob, rank, top_tokens, top_logprobs = next(entries)
                top = list(zip(top_tokens, top_logprobs, strict=True))[: part.num_top]
                of_part.append(TokenLogprobs(token, logprob, top, rank))
            found[part.row] = (part.first, of_part)
        return found
