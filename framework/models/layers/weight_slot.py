"""The meeting point of a checkpoint tensor and the layer that takes (a slice of) it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

ShardId = int | str | None
"""The part of a merged parameter that a checkpoint tensor fills: "q", "k", "v", or an index; None for all of it."""


class WeightSource(Protocol):
    """A full checkpoint tensor: a `Tensor`, or a safetensors slice that reads from disk only what is indexed."""

    def __getitem__(self, index: slice | tuple[slice, ...], /) -> Tensor: ...


class LoadableLayer(Protocol):
    """The methods of a layer that the loader needs."""

    def full_shape(self, param_name: str, shard_id: ShardId = None) -> tuple[int, ...]:
        """The shape of the checkpoint tensor, before any tensor-parallel split."""

    def load(self, param_name: str, source: WeightSource, shard_id: ShardId = None) -> None:
        """Copy this rank's slice of `source`, whose shape is `full_shape(...)`, into the parameter."""


@dataclass(frozen=True, slots=True)
class WeightSlot:
    """One tensor of a checkpoint and its place."""

    layer: LoadableLayer
    param_name: str
    shard_id: ShardId = None

    @property
    def full_shape(self) -> tuple[int, ...]:
        return self.layer.full_shape(self.param_name, self.shard_id)

    def load(self, source: WeightSource) -> None:
        self.layer.load(self.param_name, source, self.shard_id)


def linear_slots(name: str, layer: LoadableLayer, bias: bool, shard_id: ShardId = None) -> dict[str, WeightSlot]:
    """Checkpoint name -> slot, of a linear layer's weight and of its bias if the checkpoint has one.

    `bias` is asked for, since only rank 0 of a row-parallel layer holds its bias.
    """
    slots = {f"{name}.weight": WeightSlot(layer, "weight", shard_id)}
    if bias:
        slots[f"{name}.bias"] = WeightSlot(layer, "bias", shard_id)
    return slots
