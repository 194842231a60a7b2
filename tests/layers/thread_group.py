"""Ranks of one process: threads that meet at a barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from framework.models.layers.group import TensorParallelGroup


@dataclass(frozen=True, slots=True)
class ThreadGroup(TensorParallelGroup):
    """Collectives through a list that all ranks share."""

    barrier: Any = None
    shared: Any = None

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._exchange(x)).sum(0)

    def all_gather(self, x: torch.Tensor, dim: int = -1) -> torch.Tensor:
        return torch.cat(self._exchange(x), dim)

    def _exchange(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.shared[self.rank] = x
        self.barrier.wait(timeout=20)
        tensors = list(self.shared)
        self.barrier.wait(timeout=20)
        return tensors


def run_ranks(size: int, function: Callable[[TensorParallelGroup], Any]) -> list[Any]:
    """Call `function(group)` on every rank at once and return the results in rank order."""
    barrier, shared = threading.Barrier(size), [None] * size

    def on_rank(rank: int) -> Any:
        with torch.inference_mode():
            return function(ThreadGroup(rank, size, None, barrier, shared))

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(on_rank, range(size)))
