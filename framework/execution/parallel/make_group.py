"""One rank's way into the group: store, process group, and the all-reduce that was chosen."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from framework.execution.parallel.connect import connect, open_sockets, shut_down
from framework.execution.parallel.symmetric import SymmetricSum
from framework.execution.rank.choices import Choices
from framework.interfaces.errors import IncompatibleError
from framework.models.layers.group import Progress, TensorParallelGroup


@dataclass(slots=True)
class Joined:
    """A group that every rank has joined, and what runs its sums."""

    group: TensorParallelGroup
    allreduce: str
    """gloo, nccl, or symm_mem with nccl for what is too large for it"""
    passed_over: dict[str, str]
    """Why `auto` did not take a faster one"""
    sockets: set[tuple[int, int]]
    """Of gloo: descriptors and inodes"""
    _ended: bool = False

    def abort(self) -> None:
        """Give up what is in flight, from any thread, so that whoever waits for a lost peer is freed. Idempotent."""
        shut_down(self.sockets)
        self.sockets = set()
        if self.allreduce in ("nccl", "symm_mem") and not self._ended:
            self._ended = True
            self.group.process_group.abort()

    def close(self) -> None:
        """After everything in flight has ended on every rank. Idempotent."""
        if isinstance(self.group.sum_small, SymmetricSum):
            self.group.sum_small.close()
        if self.allreduce in ("nccl", "symm_mem") and not self._ended:
            self._ended = True
            self.group.process_group.shutdown()


def join(
    cfg: DictConfig, choices: Choices, store: Any, name: str, rank: int, progress: Progress, *, local: bool
) -> Joined:
    """Meet the other ranks at `store`, waiting for all of them; at most `executor.startup_limit_s`.

    Args:
        name: of this engine, like no other's.

    Raises:
        IncompatibleError: executor.allreduce=symm_mem, and these GPUs cannot.
    """
    size, wanted = cfg.executor.tp, cfg.executor.allreduce
    backend = "gloo" if choices.device.type == "cpu" or wanted == "gloo" else "nccl"
    if backend == "nccl":
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # NVLink multicast stays off
    before = open_sockets()
    process_group = connect(
        store, rank, size, choices.device, cfg.executor.startup_limit_s, local=local, backend=backend
    )
    group = TensorParallelGroup(rank, size, process_group, progress=progress)
    joined = Joined(group, backend, {}, open_sockets() - before if backend == "gloo" else set())
    if backend == "nccl" and wanted in ("auto", "symm_mem"):
        symmetric, reason = _symmetric(choices, group, name)
        if symmetric is not None:
            joined.group = dataclasses.replace(group, sum_small=symmetric)
            joined.allreduce = "symm_mem"
        elif wanted == "symm_mem":
            raise IncompatibleError(f"executor.allreduce=symm_mem: {reason}; set executor.allreduce=nccl")
        else:
            joined.passed_over["symm_mem"] = reason
    return joined


def _symmetric(choices: Choices, group: TensorParallelGroup, name: str) -> tuple[SymmetricSum | None, str]:
    """The symmetric all-reduce if it works on every rank, else why it does not here."""
    symmetric: SymmetricSum | None = None
    wrong: str | None = None
    try:
        num_elements = choices.spec.max_num_batched_tokens * choices.config.hidden_size
        symmetric = SymmetricSum(group.process_group, name, choices.device, choices.dtype, num_elements)
    except RuntimeError as error:
        wrong = str(error).splitlines()[0]
    works = bool(group.min(int(wrong is None), choices.device))  # before any rank waits for the others' kernels
    if works:
        assert symmetric is not None
        wrong = symmetric.self_test(group.rank, group.size)
        works = bool(group.min(int(wrong is None), choices.device))
    if not works and symmetric is not None:
        symmetric.close()
    return (symmetric, "") if works else (None, wrong or "it does not work on another rank")
