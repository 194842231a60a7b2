"""All that rows can ask of `sampler=full`, in memory that captured graphs read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.temperature import MIN_TEMPERATURE
from framework.toolkit.samplers.to_device import columns, sent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILTERS, EDITS = 1, 2
"""The flags that `kind_of` returns: top-k, top-p or min-p on a row that draws; a bias or penalties."""
MAX_BIAS = 1024
"""The largest number of entries in the `logit_bias` of a request. A mark has bits for this many (`edits.py`)."""


def kind_of(params: SamplingParams, vocab_size: int) -> int:
    """What of `FILTERS` and `EDITS` a row needs; 0 for a temperature alone. Filters change nothing on a greedy row."""
    filters = params.temperature >= MIN_TEMPERATURE and (
        0 < params.top_k < vocab_size or params.top_p < 1 or params.min_p > 0
    )
    return FILTERS * filters + EDITS * bool(params.has_penalties or params.logit_bias)


@dataclass(slots=True)
class RowParams:
    """Parameters of R rows. Rows of kind 0 are drawn at once; for the others `first_weight_R` is 0.

    Args:
        values: [12, R] float32, the columns below in this order.
        bias_token_RB: [R, MAX_BIAS] int32, of which each row's first `num_bias_R` count.
        bias_value_RB: [R, MAX_BIAS] float32.
    """

    values: Tensor
    bias_token_RB: Tensor
    bias_value_RB: Tensor

    @classmethod
    def of(
        cls, params: Sequence[SamplingParams], vocab_size: int, device: torch.device, out: RowParams | None
    ) -> RowParams:
        """New memory, or that of `out`, which then is the result."""
        kinds = [kind_of(one, vocab_size) for one in params]
        draws = [one.temperature >= MIN_TEMPERATURE for one in params]
        temperatures = [one.temperature if drawn else 0.0 for one, drawn in zip(params, draws, strict=True)]
        nothing: list[float] = [0.0] * len(params)
        asked = any(kinds)
        values: list[list[float]] = [
            [one or 1.0 for one in temperatures],
            [drawn and not kind for drawn, kind in zip(draws, kinds, strict=True)],
            list(map(float, kinds)),
            temperatures if asked else nothing,
            [one.top_k if one.top_k < vocab_size else 0 for one in params] if asked else nothing,
            [one.top_p for one in params] if asked else nothing,
            [math.log(one.min_p) if one.min_p else -math.inf for one in params] if asked else nothing,
            [one.repetition_penalty for one in params] if asked else nothing,
            [one.presence_penalty for one in params] if asked else nothing,
            [one.frequency_penalty for one in params] if asked else nothing,
            [one.has_penalties for one in params] if asked else nothing,
            [len(one.logit_bias) for one in params] if asked else nothing,
        ]
        if out is None:
            out = cls(columns(values, device), *_no_bias(len(params), device))
        else:
            columns(values, device, out.values)
        if asked and any(one.logit_bias for one in params):
            out._send_bias(params, device)
        return out

    def _send_bias(self, params: Sequence[SamplingParams], device: torch.device) -> None:
        import numpy as np

        width = max(len(one.logit_bias) for one in params)
        tokens = np.zeros((len(params), width), dtype=np.int32)
        biases = np.zeros((len(params), width), dtype=np.float32)
        for row, one in enumerate(params):
            count = len(one.logit_bias)
            tokens[row, :count], biases[row, :count] = list(one.logit_bias), list(one.logit_bias.values())
        sent(tokens, device, out=self.bias_token_RB)
        sent(biases, device, out=self.bias_value_RB)

    @property
    def first_divisor_R(self) -> Tensor:
        """The temperature; 1 for greedy rows"""
        return self.values[0]

    @property
    def first_weight_R(self) -> Tensor:
        """1 for rows of kind 0 that draw, else 0"""
        return self.values[1]

    @property
    def kind_R(self) -> Tensor:
        return self.values[2]

    @property
    def temperature_R(self) -> Tensor:
        """0 for greedy rows; this one and those below are only right if some row has a kind above 0"""
        return self.values[3]

    @property
    def top_k_R(self) -> Tensor:
        """0 keeps all tokens"""
        return self.values[4]

    @property
    def top_p_R(self) -> Tensor:
        return self.values[5]

    @property
    def log_min_p_R(self) -> Tensor:
        """-inf keeps all tokens"""
        return self.values[6]

    @property
    def repetition_R(self) -> Tensor:
        return self.values[7]

    @property
    def presence_R(self) -> Tensor:
        return self.values[8]

    @property
    def frequency_R(self) -> Tensor:
        return self.values[9]

    @property
    def penalized_R(self) -> Tensor:
        """1 for rows with any of the three penalties"""
        return self.values[10]

    @property
    def num_bias_R(self) -> Tensor:
        return self.values[11]


def _no_bias(num_rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    import torch

    return (
        torch.zeros(num_rows, MAX_BIAS, dtype=torch.int32, device=device),
        torch.zeros(num_rows, MAX_BIAS, dtype=torch.float32, device=device),
    )
