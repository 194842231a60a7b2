"""One device in this process: steps run one after another on a thread of their own, so that `submit` never blocks."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from framework.clock import RealClock
from framework.execution.executor import Executor, StepBatch, StepResult
from framework.execution.runner import Runner


class LocalExecutor(Executor):
    """Runs a `Runner`. PyTorch releases the interpreter lock inside its kernels, which is when planning gets done."""

    def __init__(self, runner: Runner, *, num_blocks: int, threads: int | None = None) -> None:
        self.num_blocks = num_blocks
        self.clock = RealClock()
        self._runner = runner
        initializer = (lambda: torch.set_num_threads(threads)) if threads else None  # OpenMP's count is per thread
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="servelab-runner", initializer=initializer)
        self._pending: deque[Future[StepResult]] = deque()

    def submit(self, batch: StepBatch) -> None:
        self._pending.append(self._thread.submit(self._runner.run, batch))

    def collect(self) -> StepResult:
        return self._pending.popleft().result()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
