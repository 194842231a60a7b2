"""Layers that use the C++ elementwise kernels. They replace the plain layers of a model that was loaded."""

from __future__ import annotations

from torch import Tensor, nn

from framework.execution.kernels.cpu.elementwise import rms_norm, rotate_, silu_and_mul
from framework.models.layers.norm import RMSNorm
from framework.models.layers.rotary import RotaryEmbedding


class NativeRMSNorm(nn.Module):
    """`RMSNorm` in one pass, together with the residual addition."""

    def __init__(self, plain: RMSNorm) -> None:
        super().__init__()
        self.eps = plain.eps
        self.weight = plain.weight

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] -> [T, D]."""
        return rms_norm(x_TD, self.weight, self.eps)

    def add_and_norm(self, x_TD: Tensor, residual_TD: Tensor) -> Tensor:
        """Add `x` to the residual stream in place. Return the normalised stream."""
        return rms_norm(x_TD, self.weight, self.eps, residual_TD)


class NativeSiluAndMul(nn.Module):
    """`SiluAndMul` in one pass."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """[T, 2 I] -> [T, I]."""
        return silu_and_mul(gate_up)


class NativeRotaryEmbedding(nn.Module):
    """`RotaryEmbedding` in one pass. It works in place, because its input is always a fresh projection."""

    def __init__(self, plain: RotaryEmbedding) -> None:
        super().__init__()
        self.plain = plain

    def angles(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """The cosine and the signed sine of the positions, [T, 1, H] each. All layers of a step share them."""
        return self.plain.angles(positions_T)

    def rotate(self, qk_TNH: Tensor, cos_T1H: Tensor, signed_sin_T1H: Tensor) -> Tensor:
        """Rotate [T, N + M, H] in place, and return it."""
        return rotate_(qk_TNH, cos_T1H, signed_sin_T1H)
