"""The gated activation of the feed-forward block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SiluAndMul(nn.Module):
    """SwiGLU's gate (Shazeer 2020, arXiv 2002.05202): `silu(gate) * up` of `[gate | up]`."""

    def forward(self, gate_up: Tensor) -> Tensor:
        """[T, 2 I] -> [T, I]."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)
