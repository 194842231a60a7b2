"""The penalties that look at the tokens seen so far, on the device and without host synchronisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.sampler import SamplingParams, TokenHistory

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(slots=True)
class Penalties:
    """Repetition, presence and frequency penalties of the P rows that have any."""

    row_P: Tensor
    repetition_P1: Tensor
    presence_P1: Tensor
    frequency_P1: Tensor
    counts_output: bool
    """Whether some row has a presence or frequency penalty, so that output tokens must be counted."""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> Penalties | None:
        """None when no row has a penalty."""
        import torch

        rows = [row for row, p in enumerate(params) if p.has_penalties]
        if not rows:
            return None

        def column(name: str) -> Tensor:
            return torch.tensor([[getattr(params[row], name)] for row in rows], dtype=torch.float32, device=device)

        return cls(
            torch.tensor(rows, device=device),
            column("repetition_penalty"),
            column("presence_penalty"),
            column("frequency_penalty"),
            any(params[row].presence_penalty or params[row].frequency_penalty for row in rows),
        )

    def apply(self, logits_RV: Tensor, history: TokenHistory) -> None:
        """Change the logits of tokens seen in prompt or output, in place.

        Works on the L tokens of the history, not on the vocabulary: a token that occurs several times is computed
        several times to the same value, so it does not matter which of its writes comes last. Positions that hold no
        token stand for the row's first one, with a count of 0.
        """
        import torch

        slot_P = history.slot_R[self.row_P]
        ids_PL = history.token_ids_SL[slot_P].long()
        num_prompt_P1 = history.num_prompt_S[slot_P].unsqueeze(1)
        num_tokens_P1 = history.num_tokens_R[self.row_P].unsqueeze(1)
        position_L = torch.arange(ids_PL.shape[1], device=ids_PL.device)
        in_history_PL = position_L < num_tokens_P1
        ids_PL = torch.where(in_history_PL, ids_PL, ids_PL[:, :1])

        old_PV = logits_RV[self.row_P]
        seen_PL = old_PV.gather(1, ids_PL)
        seen_PL = torch.where(seen_PL > 0, seen_PL / self.repetition_P1, seen_PL * self.repetition_P1)
        if self.counts_output:
            is_output_PL = (in_history_PL & (position_L >= num_prompt_P1)).to(torch.float32)
            count_PL = torch.zeros_like(old_PV).scatter_add_(1, ids_PL, is_output_PL).gather(1, ids_PL)
            seen_PL -= self.frequency_P1 * count_PL + self.presence_P1 * (count_PL > 0)
        logits_RV[self.row_P] = old_PV.scatter_(1, ids_PL, seen_PL)
