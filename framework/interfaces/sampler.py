"""The sampler: logits in, one token id per row out.

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
"""Takes the place of the token in a row whose logits are not all finite numbers, so that the request ends as failed.
float64 represents it exactly, and no token id can be equal to it."""


@dataclass(slots=True, kw_only=True)
class TokenHistory:
    """The tokens of each sampled row, on the device, including those that the host has not seen yet.

    The tensors are those in which the engine keeps its tokens, with one row per slot. Tokens are gathered from them
    only when a property asks for it.
    """

    token_ids_SL: Tensor
    """[S, L] int32: the tokens of every slot. Positions at and past a row's `num_tokens_R` are undefined."""
    num_prompt_S: Tensor
    """[S] int64: the number of prompt tokens of every slot."""
    slot_R: Tensor
    """[R] int64: the slot of each sampled row."""
    num_tokens_R: Tensor
    """[R] int64: the number of prompt and output tokens of each sampled row."""

    @property
    def token_ids_RL(self) -> Tensor:
        """[R, L] int32: the tokens of each sampled row, as a copy."""
        return self.token_ids_SL[self.slot_R]

    @property
    def num_prompt_R(self) -> Tensor:
        """[R] int64: the number of prompt tokens of each sampled row, as a copy."""
        return self.num_prompt_S[self.slot_R]

    @classmethod
    def of_rows(cls, token_ids_RL: Tensor, num_prompt_R: Tensor, num_tokens_R: Tensor) -> TokenHistory:
        """The history of rows that lie in order, so that row r has slot r."""
        import torch

        slot_R = torch.arange(len(num_tokens_R), device=num_tokens_R.device)
        return cls(token_ids_SL=token_ids_RL, num_prompt_S=num_prompt_R, slot_R=slot_R, num_tokens_R=num_tokens_R)


class Sampler(ABC):
    """Picks tokens. The noise is a function of (seed, position), so a token does not depend on its batch."""

    graph_safe: bool = True
    """Whether `sample` can be captured in a graph. That needs no host synchronisation and no data-dependent shapes, and
    on a GPU `prepare` has to be able to refill what it prepared."""
    takes_model_dtype: bool = False
    """Whether `sample` takes logits of any float dtype and does not change them."""
    checks_finite: bool = False
    """Whether `sample` and `sample_shard` look for NaN and infinite logits themselves, and give such a row the token
    `NOT_FINITE` (and an infinite score). For other samplers the framework reads the logits once more."""
    can_shard: bool = False
    """Whether `sample_shard` exists. If so, no rank needs the logits of the others when the vocabulary is split."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size, self.device = vocab_size, device

    @classmethod
    @abstractmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        """Why this sampler can't honour `params`, and which sampler can. None if it can."""

    @abstractmethod
    def prepare(self, params: Sequence[SamplingParams], out: Any = None) -> Any:
        """Move the rows' parameters to the device. Called only when the sampled rows change.

        `out` is an earlier result for the same number of rows. A graph-safe sampler overwrites its tensors and returns
        it, because a captured graph reads the parameters there.
        """

    def redraws(self, params: SamplingParams) -> bool:
        """Whether a row with these parameters gets its token from `redraw`, which replaces the one from `sample`."""
        return False

    @abstractmethod
    def sample(
        self, logits_RV: Tensor, prepared: Any, seed_R: Tensor, position_R: Tensor, history: TokenHistory
    ) -> Tensor:
        """Choose one token id per row, [R] int64.

        `logits_RV` is float32 and may be overwritten, unless `takes_model_dtype` is set. `seed_R` is int64, and so is
        `position_R`, the position that the new token will have.
        """

    def sample_shard(
        self, logits_RW: Tensor, prepared: Any, seed_R: Tensor, position_R: Tensor, first_token: int
    ) -> tuple[Tensor, Tensor]:
        """The best of the W tokens from id `first_token` on: its score, [R] float32, and its id, [R] int64.

        The token with the highest score over all ranks has to be the one that `sample` takes from the whole vocabulary.
        Of equal scores the lowest id wins. `logits_RW` is as in `sample`.
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
        """The tokens of all rows, [R] int64: `token_R` with new tokens in the rows for which `redraws` is true.

        It is called, or its captured graph replayed, only for batches that hold such a row. Other batches therefore
        pay nothing for it. `logits_RV` are those that `sample` had, for the whole vocabulary on every rank, and must
        not be changed. A row whose token is `NOT_FINITE` keeps it.
        """
        raise NotImplementedError(f"{type(self).__name__} says that it redraws and has no redraw")

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray | None:
        """The distribution that a row without penalties and bias is drawn from: [V] float64 with the sum 1, for [V]
        float64 logits.

        It is optional. Only `framework check` reads it, to compare draws with it. Write it in the plainest way and
        share no code with `sample`, since shared code would agree with itself.
        """
        return None
