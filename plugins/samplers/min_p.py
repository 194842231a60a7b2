"""Min-p sampling: a floor that rises and falls with the model's confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from framework.interfaces.sampler import Sampler, SamplingParams, TokenHistory
from framework.registry import SAMPLERS
from framework.toolkit.samplers import stated
from framework.toolkit.samplers.refusals import refusal
from framework.toolkit.samplers.selection import argmax_rows, gumbel_argmax
from framework.toolkit.samplers.temperature import RowTemperatures, Temperature
from framework.toolkit.samplers.to_device import columns

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@SAMPLERS.register("min_p")
class MinP(Sampler):
    """Draws among the tokens at least `min_p` times as likely as the most likely one (Nguyen et al., "Turning Up the
    Heat: Min-p Sampling", arXiv 2407.01082). The temperature comes first, as in the paper's implementation.

    Args:
        min_p: what a request with `min_p=0` (the default of a request) gets, in [0, 1]; the paper advises .05 to .1.

    Raises:
        ValueError: `min_p` is outside [0, 1].
    """

    def __init__(self, vocab_size: int, device: torch.device, *, min_p: float = 0.1) -> None:
        super().__init__(vocab_size, device)
        if not 0 <= min_p <= 1:
            raise ValueError(f"sampler.min_p={min_p} must be in [0, 1]; 0 keeps every token")
        self.min_p = min_p
        self.same_operations = device.type == "cuda"
        """For graphs; elsewhere a batch of greedy rows alone has less to do"""

    @classmethod
    def unsupported_reason(cls, params: SamplingParams) -> str | None:
        return refusal("min_p", params, honours=("min_p",))

    def prepare(
        self, params: Sequence[SamplingParams], out: tuple[RowTemperatures, Tensor] | None = None
    ) -> tuple[Temperature | RowTemperatures, Tensor] | None:
        """The temperatures, and the logarithm of min_p, [1, R] float32, -inf where it is 0."""
        temperature: Temperature | RowTemperatures | None
        if self.same_operations:
            temperature = RowTemperatures.of(params, self.device, None if out is None else out[0])
        else:
            temperature = Temperature.of(params, self.device)
        if temperature is None:
            return None
        shares = [one.min_p or self.min_p for one in params]
        logs = [[math.log(share) if share else -math.inf for share in shares]]
        return temperature, columns(logs, self.device, None if out is None else out[1])

    def sample(
        self,
        logits_RV: Tensor,
        prepared: tuple[Temperature | RowTemperatures, Tensor] | None,
        seed_R: Tensor,
        position_R: Tensor,
        history: TokenHistory,
    ) -> Tensor:
        if prepared is None:
            return argmax_rows(logits_RV)
        temperature, log_share_1R = prepared
        if isinstance(temperature, RowTemperatures):
            temperature = temperature.as_columns()
        logits_RV /= temperature.divisor_R1
        ban_below_share(logits_RV, log_share_1R.T)
        return gumbel_argmax(logits_RV, seed_R, position_R, temperature.noise_weight_R1)

    def probabilities(self, logits_V: np.ndarray, params: SamplingParams) -> np.ndarray:
        return stated.masked_softmax(logits_V, params, stated.min_p(params.min_p or self.min_p))


def ban_below_share(logits_RV: Tensor, log_share_R1: Tensor) -> None:
    """Set to -inf, in place, what is less likely than the given share of its row's maximum, which always stays."""
    logits_RV.masked_fill_(logits_RV < logits_RV.amax(-1, keepdim=True) + log_share_R1, -math.inf)
