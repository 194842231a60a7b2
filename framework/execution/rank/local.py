"""One device in this process. A GPU's steps are enqueued at once; a CPU's steps run on a separate thread.

Either way `submit` does not wait for a step to run.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import suppress

import torch

from framework.execution.device.thread import DeviceThread
from framework.execution.rank.runner import Runner
from framework.execution.step.pending import PendingStep
from framework.interfaces.clock import RealClock
from framework.interfaces.executor import Executor, StepBatch, StepResult


class LocalExecutor(Executor):
    """Runs a `Runner`. PyTorch releases the interpreter lock inside CPU kernels, which is when planning gets done."""

    def __init__(self, runner: Runner, thread: DeviceThread | None, *, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.clock = RealClock()
        self._runner: Runner | None = runner
        self._thread = thread
        self._pending: deque[Future[StepResult] | PendingStep] = deque()

    def started(self) -> None:
        """Everything is compiled and warm."""

    def submit(self, batch: StepBatch) -> None:
        if self._thread is None:
            self._pending.append(self._launch(batch))
        else:
            self._pending.append(self._thread.submit(lambda: self._launch(batch).result()))

    def collect(self) -> StepResult:
        return self._pending.popleft().result()

    def discard(self) -> None:
        while self._pending:
            with suppress(Exception):  # the engine knows of the first failure, of which others may follow
                self._pending[0].result()
            self._pending.popleft()
        if self._thread is not None:
            self._thread.run(int)  # an interrupt may have kept a step that runs from getting into the list
        else:
            torch.cuda.synchronize()

    def fill_cache(self) -> None:
        assert self._runner is not None, "fill_cache after close"
        for cache in self._runner.network.kv_caches:
            cache.normal_() if cache.element_size() > 1 else cache.zero_()  # no random numbers of 8 bits

    def close(self) -> None:
        self._pending.clear()
        if self._thread is not None:
            self._thread.close()
        elif self._runner is not None:
            torch.cuda.synchronize()
        if self._runner is not None:
            self._runner.close()
        self._runner = None  # the next engine needs the memory
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def effective(self) -> dict[str, object]:
        graphs = self._runner.graphs if self._runner else None
        return {} if graphs is None else graphs.effective()

    def _launch(self, batch: StepBatch) -> PendingStep:
        assert self._runner is not None, "submit after close"
        return self._runner.launch(batch)
