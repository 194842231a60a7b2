"""Several ranks as one device: rank 0 runs here, the others run the same plans in their own processes."""

from __future__ import annotations

import os
import time
import weakref
from concurrent.futures import Future

import torch

from framework.execution.device.thread import DeviceThread
from framework.execution.parallel.plan_codec import PlanEncoder
from framework.execution.parallel.ranks import Ranks
from framework.execution.parallel.watch import Watch
from framework.execution.rank.local import LocalExecutor
from framework.execution.rank.rank import Rank
from framework.execution.step.pending import PendingStep
from framework.interfaces.errors import RankError
from framework.interfaces.executor import StepBatch, StepResult
from framework.models.layers.group import PeerError

_LOOK_S = 0.25
_PATIENCE_S = 3.0


class ParallelExecutor(LocalExecutor):
    """Sends every plan to the workers and runs it as rank 0.

    Every rank derives the same tokens, so nothing comes back but heartbeats: a worker that died, raised or stalled
    makes `submit` or `collect` raise, with its traceback as a note of the error.
    """

    def __init__(self, rank: Rank, thread: DeviceThread | None, ranks: Ranks) -> None:
        super().__init__(rank.runner, thread, num_blocks=rank.num_blocks)
        self._ranks = ranks
        self._encoder = PlanEncoder()
        self._broken: BaseException | None = None
        """Why the ranks are no longer at the same step."""
        self._finalizer = weakref.finalize(self, _end_workers, ranks, os.getpid())  # an engine that nobody closed

    def submit(self, batch: StepBatch) -> None:
        watch = self._ranks.watch
        watch.check()
        assert self._ranks.plans is not None
        self._broken = InterruptedError("an interrupt while a plan was sent")
        watch.working = watch.submitting = True
        try:
            self._ranks.plans.send(self._encoder.encode(batch))
            super().submit(batch)
        except PeerError as error:
            raise watch.explain(error) from error
        except BaseException as error:
            self._broken = error
            raise
        finally:
            watch.submitting = False
        self._broken = None

    def collect(self) -> StepResult:
        watch = self._ranks.watch
        try:
            self._wait(watch)
            result = super().collect()
        except PeerError as error:
            raise watch.explain(error) from error
        except Exception as error:
            self._broken = error
            raise
        watch.working = bool(self._pending)
        return result

    def discard(self) -> None:
        """Run the steps that an interrupt left to their end. After a failed step the other ranks cannot go on."""
        while self._pending and self._broken is None:
            self.collect()
        if self._broken is not None:
            cause = f"{type(self._broken).__name__}: {self._broken}".removesuffix(": ")
            raise RankError(f"the ranks are not at the same step any more, after {cause}") from self._broken
        super().discard()

    def started(self) -> None:
        """From now on a rank that falls behind is at fault."""
        self._ranks.watch.judging = True

    def close(self) -> None:
        idle = not self._pending and self._ranks.watch.failure is None and self._broken is None
        self._finalizer.detach()
        if not idle:
            self._ranks.abort()  # before the graphs go: a step in flight may wait for a lost rank
        if self._runner is not None:
            self._runner.release_graphs()  # before the ranks' end, which waits for them
        try:
            self._ranks.end(now=not idle)  # before this rank's own: a step in flight waits for them
        except (PeerError, RankError):
            self._ranks.end(now=True)
        if not idle:
            self._give_up()
        super().close()

    def effective(self) -> dict[str, object]:
        joined = self._ranks.joined
        assert joined is not None
        return super().effective() | {
            "tp": self._ranks.size,
            "allreduce": joined.allreduce,
            "allreduce_passed_over": joined.passed_over,
            "plan_transport": self._ranks.plan_transport,
            "ranks": [peer.ready for peer in self._ranks.watch.peers],
        }

    def _wait(self, watch: Watch) -> None:
        """Wait for the oldest step. One that another rank will never finish must not hold the main thread for ever."""
        step = self._pending[0]
        if isinstance(step, Future):
            while True:
                try:
                    step.exception(timeout=_LOOK_S)
                    return
                except TimeoutError:
                    watch.check()
        while not step.done():  # as torch's own synchronize does, this spins
            watch.check()
        watch.check()  # a sum that was given up is done too

    def _give_up(self) -> None:
        """End whatever waits for a rank that is gone or stuck, as far as it can be ended."""
        if self._thread is not None:
            self._thread.interrupt()
            return
        until_s = time.monotonic() + _PATIENCE_S
        while not torch.cuda.current_stream().query():
            if time.monotonic() > until_s:
                self._runner = None  # so that `close` does not wait for a kernel that will never end
                return
            time.sleep(_LOOK_S)

    def _launch(self, batch: StepBatch) -> PendingStep:
        self._ranks.progress.count += 1
        return super()._launch(batch)


def _end_workers(ranks: Ranks, process_id: int) -> None:
    """In the process that started them: one that was forked from it has them in its memory too."""
    if os.getpid() == process_id:
        ranks.end(now=True)
