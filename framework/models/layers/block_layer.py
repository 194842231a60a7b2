"""Layers whose weight may stay as a checkpoint stores it."""

from __future__ import annotations

import torch
from torch import nn

from framework.models.layers.quantized import QuantizedRows
from framework.models.layers.weight_slot import ShardId


class LayerOfBlocks(nn.Module):
    """A layer whose weight can stay in a checkpoint's blocks.

    Attributes:
        pieces: the rows of the weight in blocks, one piece after the other, if the loader left them so. `weight` is
            then a meta tensor, and a kernel has to be set that reads the blocks.
    """

    weight: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self.pieces: tuple[QuantizedRows, ...] = ()

    def share_of_blocks(self, source: QuantizedRows, shard_id: ShardId = None) -> QuantizedRows | None:
        """This rank's slice of a checkpoint's weight; None if it begins or ends inside a block."""
        raise NotImplementedError

    def keep_blocks(self, pieces: tuple[QuantizedRows, ...]) -> None:
        """Take `pieces` in place of the weight, whose memory is freed."""
        self.pieces = pieces
        self.weight = nn.Parameter(torch.empty_like(self.weight, device="meta"), requires_grad=False)
