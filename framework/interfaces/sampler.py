"""The sampler: logits in, one token id a row out.

Shape letters: R sampled rows, V vocabulary, L positions of the longest request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framework.interfaces.sampling_params import SamplingParams

if TYPE_CHECKING:  # composing a configuration imports every plugin, and must not wait for torch
    import numpy as np
    import torch
    from torch import Tensor

__all__ = ["NOT_FINITE", "Sampler", "SamplingParams", "TokenHistory"]

NOT_FINITE = -(1 << 40)
"""In place of the token of a row whose logits are not all finite numbers: the request ends as failed. float64 holds it
exactly, and no token id looks like it."""


@dataclass(slots=True, kw_only=True)
class TokenHistory:
    """The tokens of each sampled row, on the device, including those that the host has not seen yet.

    They lie where the engine keeps them, a row per slot; what is gathered from there is gathered when it is asked for.
    """

    token_ids_SL: Tensor
    """[S, L] int32, of every slot; positions at and past a row's `num_tokens_R` are undefined"""
    num_prompt_S: Tensor
    """[S] int64"""
    slot_R: Tensor
    """[R] int64, the slot of each sampled row"""
    num_tokens_R: Tensor
    """[R] int64, prompt and output"""

    @property
    def token_ids_RL(self) -> Tensor:
        """[R, L] int32, a copy."""
        return self.token_ids_SL[self.slot_R]

    @property
    def num_prompt_R(self) -> Tensor:
        """[R] int64, a copy."""
        return self.num_prompt_S[self.slot_R]

    @classmethod
    def of_rows(cls, token_ids_RL: Tensor, num_prompt_R: Tensor, num_tokens_R: Tensor) -> TokenHistory:
        """Of rows that lie in order: row r has slot r."""
        import torch

        slot_R = torch.arange(len(num_tokens_R), device=num_tokens_R.device)
        return cls(token_ids_SL=token_ids_RL, num_prompt_S=num_prompt_R, slot_R=slot_R, num_tokens_R=num_tokens_R)


class Sampler(ABC):
    """Picks tokens. The noise is a function of (seed, position), so a token does not depend on who shares its batch."""

    graph_safe: bool = True
    """Whether `sample` can be captured in a graph: no host synchronisation, no data-dependent shapes, and on a GPU
    `prepare` can refill what it prepared."""
    takes_model_dtype: bool = False
    """Whether `sample` takes logits of any float dtype and leaves them as they are."""
    checks_finite: bool = False
    """Whether `sample` and `sample_shard` look for logits that are NaN or infinite themselves, and give such a row the
    token `NOT_FINITE` (and an infinite score). For other samplers the framework reads the logits once more."""
    can_shard: bool = False
    """Whether `sample_shard` exists: with a vocabulary split over ranks, no rank then needs the others' logits"""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size, self.device = vocab_size, device

    @classmethod
    @abstractmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        """Why this sampler can't honour `params`, with the sampler that can; None when it can."""

    @abstractmethod
    def prepare(self, params: Sequence[SamplingParams], out: Any = None) -> Any:
        """Move the rows' parameters to the device; called only when the sampled rows change.

        With `out`, an earlier result for as many rows, a graph-safe sampler overwrites its tensors and returns it: a
        captured graph reads them there.
        """

    def redraws(self, params: SamplingParams) -> bool:
        """Whether a row of these parameters gets its token from `redraw`, after `sample` gave it some token."""
        return False

    @abstractmethod
    def sample(
        self, logits_RV: Tensor, prepared: Any, seed_R: Tensor, position_R: Tensor, history: TokenHistory
    ) -> Tensor:
        """One token id a row, [R] int64.

        `logits_RV` is float32 and may be overwritten, unless `takes_model_dtype`; `seed_R` int64;
        `position_R` int64 is the position that the new token will have.
        """

    def sample_shard(
        self, logits_RW: Tensor, prepared: Any, seed_R: Tensor, position_R: Tensor, first_token: int
    ) -> tuple[Tensor, Tensor]:
        """The best of the W tokens from id `first_token` on: its score, [R] float32, and its id, [R] int64.

        The token whose score is highest over all ranks is the one that `sample` takes with the whole vocabulary, the
        lowest id among equals. `logits_RW` as in `sample`.
        """
        raise NotImplementedError(f"{type(self).__name__} says can_shard and has no sample_shard")

    def redraw(
        self,
        logits_RV: Tensor,
        prepared: Any,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
        token_R: Tensor,
    ) -> Tensor:
        """The tokens of all rows, [R] int64: `token_R`, with those of rows that `redraws` replaced.

        So what few rows ask for costs the others nothing: it is called, or its captured graph replayed, only for
        batches that hold such a row. `logits_RV` are those that `sample` had, of the whole vocabulary on every rank,
        and stay as they are. A row whose token is `NOT_FINITE` keeps it.
        """
        raise NotImplementedError(f"{type(self).__name__} says that it redraws and has no redraw")

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray | None:
        """What a row without penalties and bias is drawn from: [V] float64 summing to 1, for [V] float64 logits.

        Optional, and read by `framework check` alone, which compares draws with it. Write it plainly and apart from
        `sample`: shared code would agree with itself.
        """
        return None
