"""The temperatures of a batch's rows, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.sampling_params import SamplingParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MIN_TEMPERATURE = 1e-5
"""Below it a row is greedy, as in vLLM: the quotient would overflow long before a second token had a chance."""
_ALIGN = 4
"""Each tensor begins at a multiple of 16 bytes: Triton compiles a kernel again for a pointer that does not."""


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

    divisor_R: Tensor
    """[R] float32; 1 for greedy rows"""
    noise_weight_R: Tensor
    """[R] float32; 1 for rows that draw, 0 for greedy ones"""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device, out: RowTemperatures | None) -> RowTemperatures:
        """New memory, or that of `out`, which then is the result."""
        import torch

        draws = [p.temperature >= MIN_TEMPERATURE for p in params]
        divisors = [p.temperature if drawn else 1.0 for p, drawn in zip(params, draws, strict=True)]
        num_rows = len(params)
        padding = [1.0] * (-num_rows % _ALIGN)
        values = [[*divisors, *padding], [*draws, *padding]]
        both = torch.tensor(values, dtype=torch.float32, pin_memory=device.type == "cuda")
        divisor_R, noise_weight_R = both.to(device, non_blocking=True)[:, :num_rows]
        if out is None:
            return cls(divisor_R, noise_weight_R)
        out.divisor_R.copy_(divisor_R)
        out.noise_weight_R.copy_(noise_weight_R)
        return out
