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

__all__ = ["Sampler", "SamplingParams", "TokenHistory"]


@dataclass(slots=True, kw_only=True)
class TokenHistory:
    """The tokens of each sampled row, on the device, including those that the host has not seen yet."""

    token_ids_RL: Tensor
    """[R, L] int32; positions at and past `num_tokens_R` are undefined. L is 0 when no row's params have penalties"""
    num_prompt_R: Tensor
    """[R] int64"""
    num_tokens_R: Tensor
    """[R] int64, prompt and output"""


class Sampler(ABC):
    """Picks tokens. The noise is a function of (seed, position), so a token does not depend on who shares its batch."""

    graph_safe: bool = True
    """Whether `sample` can be captured in a graph: no host synchronisation, no data-dependent shapes, and on a GPU
    `prepare` can refill what it prepared."""
    takes_model_dtype: bool = False
    """Whether `sample` takes logits of any float dtype and leaves them as they are."""

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

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray | None:
        """What a row without penalties and bias is drawn from: [V] float64 summing to 1, for [V] float64 logits.

        Optional, and read by `framework check` alone, which compares draws with it. Write it plainly and apart from
        `sample`: shared code would agree with itself.
        """
        return None
