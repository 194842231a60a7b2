"""Base of samplers that leave out tokens by looking at a row's own distribution."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.toolkit.samplers.refusals import refusal
from framework.toolkit.samplers.selection import argmax_rows, gumbel_argmax
from framework.toolkit.samplers.stated import masked_softmax
from framework.toolkit.samplers.temperature import RowTemperatures, Temperature

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


class TruncationSampler(Sampler):
    """The temperature first, then the ban, then one draw. A greedy row takes the most likely token, banned or not."""

    name: ClassVar[str]

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        super().__init__(vocab_size, device)
        self.same_operations = device.type == "cuda"
        """For graphs; elsewhere a batch of greedy rows alone has less to do"""

    @abstractmethod
    def banned(self, logits_RV: Tensor) -> Tensor:
        """[R, V] bool: the tokens that cannot come. Some token of each row has to stay."""

    @abstractmethod
    def kept(self, probs_V: np.ndarray) -> np.ndarray:
        """[V] bool: the tokens that can come, for `probabilities`; without the code of `banned`."""

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        return refusal(cls.name, params)

    def prepare(
        self, params: Sequence[SamplingParams], out: RowTemperatures | None = None
    ) -> Temperature | RowTemperatures | None:
        if self.same_operations:
            return RowTemperatures.of(params, self.device, out)
        return Temperature.of(params, self.device)

    def sample(
        self,
        logits_RV: Tensor,
        prepared: Temperature | RowTemperatures | None,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
    ) -> Tensor:
        if prepared is None:
            return argmax_rows(logits_RV)
        if isinstance(prepared, RowTemperatures):
            prepared = prepared.as_columns()
        logits_RV /= prepared.divisor_R1
        banned_RV = self.banned(logits_RV)
        if prepared.noise_weight_R1 is not None:
            banned_RV &= prepared.noise_weight_R1 > 0
        logits_RV.masked_fill_(banned_RV, -math.inf)
        return gumbel_argmax(logits_RV, seed_R, position_R, prepared.noise_weight_R1)

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        return masked_softmax(logits_V, params, self.kept)
