"""The one thread on which everything of a device happens: loading, packing, running."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE_S = 2.0


class DeviceThread:
    """Runs calls one after another, so that planning goes on beside them.

    It has to be one thread for all of them: OpenMP keeps a team of threads for each thread that ever used it, and with
    more threads than cores libgomp hardly spins at its barriers. One-row steps took 37 to 44 ms this way and 46 to 72
    with two teams, on a noisy two-core machine.
    """

    def __init__(self, num_threads: int | None = None) -> None:
        initializer = (lambda: torch.set_num_threads(num_threads)) if num_threads else None  # it is set per thread
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="servelab-device", initializer=initializer)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a call after all earlier ones."""
        return self._pool.submit(function, *args, **kwargs)

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call and wait for what it returns or raises."""
        return self.submit(function, *args, **kwargs).result()

    def interrupt(self) -> None:
        """Raise `InterruptedError` in the call that runs, at its next Python instruction. Waits a moment for that."""
        idle = self._pool.submit(int)  # runs once whatever stands before it has ended
        with contextlib.suppress(TimeoutError):
            idle.result(timeout=_PATIENCE_S)
            return
        for thread in self._pool._threads:
            raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
            raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(InterruptedError))

    def close(self) -> None:
        """End the thread and its OpenMP team. Calls that have not started are dropped. It may be repeated."""
        self._pool.shutdown(wait=True, cancel_futures=True)
