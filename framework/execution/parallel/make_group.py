"""One rank's way into the group: store, process group, and the all-reduce that was chosen."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from framework.execution.parallel.connect import connect, open_sockets, shut_down
from framework.execution.parallel.symmetric import SymmetricSum
from framework.execution.rank.choices import Choices
from framework.interfaces.errors import IncompatibleError
from framework.models.layers.group import Phase, Progress, TensorParallelGroup

_END_S = 5.0
"""The time that NCCL has to end a communicator. It takes a moment unless something is wrong."""


@dataclass(slots=True)
class Joined:
    """A group that every rank has joined, and the all-reduce that computes its sums."""

    group: TensorParallelGroup
    allreduce: str
    """gloo, nccl, or symm_mem with nccl for messages that are too large for it."""
    passed_over: dict[str, str]
    """Why `auto` did not take a faster one."""
    sockets: set[tuple[int, int]]
    """The sockets of gloo: descriptors and inodes."""
    _ending: threading.Thread | None = None

    def abort(self) -> None:
        """Give up what is in flight, from any thread, and free all waits for a lost peer. May be repeated.

        It does not wait: NCCL frees its waiters first, and ends once the graphs that hold its sums are gone.
        """
        shut_down(self.sockets)
        self.sockets = set()
        self._end_nccl(self.group.process_group.abort)

    def close(self) -> None:
        """Begin the end, after everything in flight has ended here and the graphs are gone. Idempotent.

        Every rank has to: each waits for the others in `wait_closed`.
        """
        if isinstance(self.group.sum_small, SymmetricSum):
            self.group.sum_small.close()
        self._end_nccl(self.group.process_group.shutdown)

    def wait_closed(self) -> None:
        """Wait until `abort` or `close` has ended, at most 5 s. What NCCL then holds stays until the process ends."""
        if self._ending is None:
            return
        self._ending.join(_END_S)
        if self._ending.is_alive():
            print(
                f"servelab: NCCL did not end within {_END_S:g} s; its memory is free once this process ends",
                file=sys.stderr,
                flush=True,
            )

    def _end_nccl(self, end: Callable[[], None]) -> None:
        """End on a separate thread, since NCCL's calls that end a communicator have no time limit."""
        if self.allreduce == "gloo" or self._ending is not None:
            return
        self._ending = threading.Thread(target=end, name="servelab-end", daemon=True)
        self._ending.start()


def join(choices: Choices, store: Any, name: str, rank: int, progress: Progress, *, local: bool) -> Joined:
    """Meet the other ranks at `store`, waiting for all of them; at most `executor.startup_limit_s`.

    Args:
        name: of this engine, like no other's.

    Raises:
        IncompatibleError: executor.allreduce=symm_mem, and these GPUs cannot.
    """
    progress.enter(Phase.JOIN)
    size, wanted = choices.executor.tp, choices.executor.allreduce
    backend = "gloo" if choices.device.type == "cpu" or wanted == "gloo" else "nccl"
    if backend == "nccl":
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # NVLink multicast stays off
    before = open_sockets()
    process_group = connect(
        store, rank, size, choices.device, choices.executor.startup_limit_s, local=local, backend=backend
    )
    group = TensorParallelGroup(rank, size, process_group, progress=progress)
    joined = Joined(group, backend, {}, open_sockets() - before if backend == "gloo" else set())
    if backend == "nccl" and wanted in ("auto", "symm_mem"):
        symmetric, reason = _symmetric(choices, store, group, name)
        if symmetric is not None:
            joined.group = dataclasses.replace(group, sum_small=symmetric)
            joined.allreduce = "symm_mem"
        elif wanted == "symm_mem":
            raise IncompatibleError(f"executor.allreduce=symm_mem: {reason}; set executor.allreduce=nccl")
        else:
            joined.passed_over["symm_mem"] = reason
    return joined


def _symmetric(choices: Choices, store: Any, group: TensorParallelGroup, name: str) -> tuple[SymmetricSum | None, str]:
    """The symmetric all-reduce if it works on every rank, else the reason why it does not work here."""
    symmetric: SymmetricSum | None = None
    wrong: str | None = None
    try:
        num_elements = choices.spec.max_num_batched_tokens * choices.config.hidden_size
        symmetric = SymmetricSum(store, group.rank, group.size, name, choices.device, choices.dtype, num_elements)
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
