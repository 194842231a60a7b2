"""The group of ranks that share one model. Every layer gets it, so there is no global state of the process."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import AllgatherOptions, AllreduceOptions, ReduceOp


class PeerError(RuntimeError):
    """Another rank did not take part: it ended, or the connection to it did. The cause lies there."""


class Phase(enum.IntEnum):
    """What a rank is doing, in the order in which every rank of an engine does it."""

    END_BEFORE = 0
    START = 1
    IMPORT = 2
    CHOOSE = 3
    JOIN = 4
    LOAD = 5
    SIZE = 6
    CAPTURE = 7
    RUN = 8

    @property
    def label(self) -> str:
        """For messages: "did not finish LABEL"."""
        return _LABELS[self]


_LABELS = {
    Phase.END_BEFORE: "ending the engine before this one",
    Phase.START: "starting its process",
    Phase.IMPORT: "importing plugins and libraries",
    Phase.CHOOSE: "building its plugins",
    Phase.JOIN: "meeting the other ranks",
    Phase.LOAD: "loading weights",
    Phase.SIZE: "sizing the KV cache",
    Phase.CAPTURE: "capturing graphs",
    Phase.RUN: "running steps",
}


@dataclass(slots=True)
class Progress:
    """How far a rank is: the collectives and steps that it began. Equal work gives equal counts on every rank."""

    count: int = 0
    phase: Phase = Phase.START

    def enter(self, phase: Phase) -> None:
        """Begin `phase`; the heartbeat tells rank 0."""
        self.phase = phase


@dataclass(frozen=True, slots=True)
class TensorParallelGroup:
    """Rank `rank` of `size`. At size 1 every collective is the identity and costs nothing."""

    rank: int = 0
    size: int = 1
    process_group: Any = None
    """The `torch.distributed` process group to talk through, needed if `size` is above 1. It may be unregistered."""
    sum_small: Callable[[Tensor], Tensor | None] | None = field(default=None, kw_only=True)
    """Sums over the ranks in place of the process group; None for a tensor that it does not take."""
    progress: Progress = field(default_factory=Progress, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank={self.rank} must be in [0, {self.size}), the size of the tensor-parallel group")

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of `x` over the ranks. `x` itself may be overwritten.

        Raises:
            PeerError: another rank is gone.
        """
        if self.size == 1:
            return x
        self.progress.count += 1
        if self.sum_small is not None and (total := self.sum_small(x)) is not None:
            return total
        x = x.contiguous()
        self._run(self._talk().allreduce, [x], _reduce_options(ReduceOp.SUM))
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """The ranks' `x` (equal shapes) concatenated along `dim` in rank order.

        Raises:
            PeerError: another rank is gone.
        """
        if self.size == 1:
            return x
        self.progress.count += 1
        gathered = x.new_empty(self.size * x.numel())
        options = AllgatherOptions()
        options.asyncOp = False
        self._run(self._talk()._allgather_base, gathered, x.flatten(), options)
        return torch.cat(gathered.view(self.size, *x.shape).unbind(0), dim)

    def min(self, value: int, device: torch.device) -> int:
        """The smallest `value` of all ranks. Waits for the device.

        Raises:
            PeerError: another rank is gone.
        """
        if self.size == 1:
            return value
        self.progress.count += 1
        result = torch.tensor([value], dtype=torch.int64, device=device)
        self._run(self._talk().allreduce, [result], _reduce_options(ReduceOp.MIN))
        return int(result.item())

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

    def _talk(self) -> Any:
        assert self.process_group is not None, "a group of several ranks needs a process group"
        return self.process_group

    def _run(self, collective: Callable[..., Any], *args: Any) -> None:
        try:
            work = collective(*args)
            if work is not None:  # NCCL gives none for what runs on the current stream
                work.wait()
        except RuntimeError as error:
            raise PeerError(f"rank {self.rank} lost its peers: {error}") from error


def _reduce_options(operation: Any) -> Any:
    options = AllreduceOptions()
    options.reduceOp = operation
    options.asyncOp = False  # NCCL then runs on the current stream, without an event before and after
    return options
