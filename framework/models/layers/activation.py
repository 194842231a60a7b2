"""The gated activation of the feed-forward block."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


class SiluAndMul(nn.Module):
    """SwiGLU's gate (Shazeer 2020, arXiv 2002.05202): `silu(gate) * up` of `[gate | up]`."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """[T, 2 I] -> [T, I]."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)


class GeluAndMul(nn.Module):
    """GEGLU's gate (the same paper), exact or approximated by tanh (Hendrycks and Gimpel, arXiv 1606.08415)."""

    def __init__(self, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, gate_up: Tensor) -> Tensor:
        """[T, 2 I] -> [T, I]."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.gelu(gate, approximate=self.approximate).mul_(up)


class ReluAndMul(nn.Module):
    """ReGLU's gate (the same paper)."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """[T, 2 I] -> [T, I]."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.relu(gate).mul_(up)


def make_gate(activation: str) -> nn.Module:
    """The module for a `ModelConfig.activation`: "silu", "gelu", "gelu_tanh" or "relu"."""
    gates: dict[str, Callable[[], nn.Module]] = {
        "silu": SiluAndMul,
        "gelu": lambda: GeluAndMul("none"),
        "gelu_tanh": lambda: GeluAndMul("tanh"),
        "relu": ReluAndMul,
    }
    return gates[activation]()
