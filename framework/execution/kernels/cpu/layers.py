"""Drop-in layers over the C++ elementwise kernels, built from the plain ones after loading."""

from __future__ import annotations

from torch import Tensor, nn

from framework.execution.kernels.cpu.elementwise import rms_norm, rotate_, silu_and_mul
from framework.models.layers.norm import RMSNorm
from framework.models.layers.rotary import RotaryEmbedding


class NativeRMSNorm(nn.Module):
    """`RMSNorm` in one pass, the residual addition included."""

    def __init__(self, plain: RMSNorm) -> None:
        super().__init__()
        self.eps = plain.eps
        self.weight = plain.weight

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] -> [T, D]."""
        return rms_norm(x_TD, self.weight, self.eps)

    def add_and_norm(self, x_TD: Tensor, residual_TD: Tensor) -> Tensor:
        """Add `x` to the residual stream in place, and return the stream normalised."""
        return rms_norm(x_TD, self.weight, self.eps, residual_TD)


class NativeSiluAndMul(nn.Module):
    """`SiluAndMul` in one pass."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """[T, 2 I] -> [T, I]."""
        return silu_and_mul(gate_up)


class NativeRotaryEmbedding(nn.Module):
    """`RotaryEmbedding` in one pass, in place: its input is always a fresh projection."""

    def __init__(self, plain: RotaryEmbedding) -> None:
        super().__init__()
        self.plain = plain

    def angles(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin, [T, 1, H] each, once per step for all layers."""
        return self.plain.angles(positions_T)

    def rotate(self, qk_TNH: Tensor, cos_T1H: Tensor, signed_sin_T1H: Tensor) -> Tensor:
        """[T, N + M, H], overwritten and returned."""
        return rotate_(qk_TNH, cos_T1H, signed_sin_T1H)
