"""The group of ranks that share one model, handed to every layer: no process globals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorParallelGroup:
    """Rank `rank` of `size`. At size 1 both collectives are the identity and cost nothing."""

    rank: int = 0
    size: int = 1
    process_group: Any = None
    """The `torch.distributed` group to talk through; needed when `size` is above 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank={self.rank} must be in [0, {self.size}), the size of the tensor-parallel group")

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of `x` over the ranks; `x` itself may be overwritten."""
        if self.size > 1:
            assert self.process_group is not None, "a group of several ranks needs a process group"
            torch.distributed.all_reduce(x, group=self.process_group)
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """The ranks' `x` (equal shapes) concatenated along `dim` in rank order."""
        if self.size == 1:
            return x
        assert self.process_group is not None, "a group of several ranks needs a process group"
        shards = [torch.empty_like(x) for _ in range(self.size)]
        torch.distributed.all_gather(shards, x.contiguous(), group=self.process_group)
        return torch.cat(shards, dim)

    def share(self, total: int, what: str) -> int:
        """`total` divided evenly among the ranks.

        Raises:
            ValueError: if it does not divide.
        """
        if total % self.size:
            raise ValueError(
                f"{what}={total} can't be split evenly over tp={self.size} ranks; "
                f"choose executor.tp among the divisors of {total}"
            )
        return total // self.size
