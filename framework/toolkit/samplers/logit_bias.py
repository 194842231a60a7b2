"""Values that requests add to the logits of some tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.sampler import SamplingParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(slots=True)
class LogitBias:
    """The (row, token, value) triples of a batch, at least one."""

    row_E: Tensor
    token_E: Tensor
    value_E: Tensor

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocab_size: int, device: torch.device) -> LogitBias | None:
        """None when no row has a bias.

        Raises:
            ValueError: a token id outside the vocabulary.
        """
        import torch

        entries = [(row, token, value) for row, p in enumerate(params) for token, value in p.logit_bias.items()]
        if not entries:
            return None
        for _, token, _ in entries:
            if not 0 <= token < vocab_size:
                raise ValueError(f"logit_bias: token id {token} must be in [0, {vocab_size}); remove that entry")
        rows, tokens, values = zip(*entries, strict=True)
        return cls(
            torch.tensor(rows, device=device),
            torch.tensor(tokens, device=device),
            torch.tensor(values, dtype=torch.float32, device=device),
        )

    def apply(self, logits_RV: Tensor) -> None:
        """Add the biases, in place."""
        logits_RV[self.row_E, self.token_E] += self.value_E  # each (row, token) occurs once: the keys of a mapping
