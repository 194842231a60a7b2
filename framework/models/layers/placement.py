"""Where a layer's parameters live: device, dtype and tensor-parallel rank."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from framework.models.layers.group import TensorParallelGroup


@dataclass(frozen=True, slots=True)
class Placement:
    """Every layer's constructor gets it, so that memory is allocated once, in place, and filled by the loader."""

    device: torch.device
    dtype: torch.dtype
    group: TensorParallelGroup = field(default_factory=TensorParallelGroup)

    def empty(self, *shape: int) -> nn.Parameter:
        """An uninitialised parameter without gradient."""
        return nn.Parameter(torch.empty(shape, device=self.device, dtype=self.dtype), requires_grad=False)
