"""The temperatures of a batch's rows, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.to_device import columns

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MIN_TEMPERATURE = 1e-5
"""A row with a lower temperature is greedy, as in vLLM, because its quotients would overflow."""


@dataclass(slots=True)
class Temperature:
    """Temperatures of a batch in which some row draws."""

    divisor_R1: Tensor
    """[R, 1] float32; 1 for greedy rows"""
    noise_weight_R1: Tensor | None
    """[R, 1] float32: 1 for rows that draw, 0 for greedy ones; None when every row draws"""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> Temperature | None:
        """None when every row is greedy."""
        import torch

        draws = [p.temperature >= MIN_TEMPERATURE for p in params]
        if not any(draws):
            return None
        divisors = [[p.temperature if drawn else 1.0] for p, drawn in zip(params, draws, strict=True)]
        weights = None if all(draws) else torch.tensor([[float(drawn)] for drawn in draws], device=device)
        return cls(torch.tensor(divisors, dtype=torch.float32, device=device), weights)


@dataclass(slots=True)
class RowTemperatures:
    """Temperatures of a batch in the memory that a captured graph reads."""

    values: Tensor
    """[2, R] float32: see below"""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device, out: RowTemperatures | None) -> RowTemperatures:
        """New memory, or that of `out`, which then is the result."""
        draws = [p.temperature >= MIN_TEMPERATURE for p in params]
        divisors = [p.temperature if drawn else 1.0 for p, drawn in zip(params, draws, strict=True)]
        return cls(columns([divisors, draws], device, None if out is None else out.values))

    @property
    def divisor_R(self) -> Tensor:
        """[R] float32; 1 for greedy rows"""
        return self.values[0]

    @property
    def noise_weight_R(self) -> Tensor:
        """[R] float32; 1 for rows that draw, 0 for greedy ones"""
        return self.values[1]

    def as_columns(self) -> Temperature:
        """The same memory, for operations on [R, V] logits."""
        return Temperature(self.divisor_R.unsqueeze(1), self.noise_weight_R.unsqueeze(1))
