"""One device in this process: steps run one after another on its thread, so that `submit` never blocks."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future

from framework.clock import RealClock
from framework.execution.device_thread import DeviceThread
from framework.execution.executor import Executor, StepBatch, StepResult
from framework.execution.runner import Runner


class LocalExecutor(Executor):
    """Runs a `Runner`. PyTorch releases the interpreter lock inside its kernels, which is when planning gets done."""

    def __init__(self, runner: Runner, thread: DeviceThread, *, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.clock = RealClock()
        self._runner, self._thread = runner, thread
        self._pending: deque[Future[StepResult]] = deque()

    def submit(self, batch: StepBatch) -> None:
        self._pending.append(self._thread.submit(self._runner.run, batch))

    def collect(self) -> StepResult:
        return self._pending.popleft().result()

    def close(self) -> None:
        self._thread.close()
        self._pending.clear()
