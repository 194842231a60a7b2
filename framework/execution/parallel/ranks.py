"""The ranks above 0 of one engine, as rank 0 holds them. They were started here, or joined under torchrun."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeVar

import torch

from framework.config.settings import Settings
from framework.execution.parallel.connect import open_sockets, shut_down
from framework.execution.parallel.follow import start_message
from framework.execution.parallel.make_group import Joined, join
from framework.execution.parallel.processes import WorkerProcess, start_worker
from framework.execution.parallel.ring import RingWriter
from framework.execution.parallel.watch import Peer, Watch
from framework.execution.parallel.world import world_rank
from framework.execution.rank.choices import Choices
from framework.interfaces.settings import LocalSettings
from framework.models.layers.group import PeerError, Phase, Progress

T = TypeVar("T")

_END_S = 5.0
"""The time that workers have to take the message that this is the end."""


class PlanWriter(Protocol):
    """Where encoded plans go: to a `RingWriter` on one host, to a `GroupWriter` across hosts."""

    def send(self, message: bytes) -> None: ...

    def close(self) -> None: ...


class Ranks(ABC):
    """Owns the watch, the channel of the plans, and the process group of an engine."""

    plan_transport: str
    watch: Watch

    def __init__(self, cfg: Settings) -> None:
        self.size, self.limit_s = cfg.executor.tp, float(cfg.executor.startup_limit_s)
        self.progress = Progress()
        self.joined: Joined | None = None
        self.plans: PlanWriter | None = None
        self._ended = False
        self.name = f"servelab-{secrets.token_hex(8)}"

    @abstractmethod
    def join(self, choices: Choices) -> Joined:
        """Meet the workers in a process group.

        Raises:
            RankError: one of them failed before.
        """

    def wait_ready(self) -> list[dict[str, object]]:
        """What the workers found out while they were built, in order of rank, once all of them are built.

        Raises:
            RankError: one of them failed, or took longer than executor.startup_limit_s over a phase of its start.
        """
        self.progress.enter(Phase.RUN)
        self.watch.wait_for(lambda: all(peer.ready is not None for peer in self.watch.peers))
        return [peer.ready or {} for peer in self.watch.peers]

    def watched(self, make: Callable[[], T], device: torch.device) -> T:
        """`make()`, a part of this rank's start on `device`, on a thread of its own, so that it can be given up.

        Raises:
            RankError: a rank failed, this one included; the thread may be stuck then, and is left to itself.
            Exception: whatever `make` raised.
        """
        result: list[T] = []
        errors: list[Exception] = []
        finished = threading.Event()

        def run() -> None:
            try:
                if device.type == "cuda":
                    torch.cuda.set_device(device)  # each thread has its own
                result.append(make())
            except Exception as error:  # noqa: BLE001 (raised below)
                errors.append(error)
            finished.set()

        threading.Thread(target=run, name="servelab-start", daemon=True).start()
        while not finished.wait(0.02):
            self.watch.check()
        if errors:
            self.watch.check()
            raise errors[0]
        return result[0]

    def abort(self) -> None:
        """Give up this rank's sums in flight, without waiting. Calling it again does nothing."""
        if self.joined is not None:
            self.joined.abort()

    def end(self, *, now: bool) -> None:
        """End the workers' part in this engine: `now`, or after the plans that they have. May be repeated.

        Raises:
            PeerError: not `now`, and a worker is gone or takes no more plans.
        """
        if self._ended:
            return
        self.watch.close()
        self._tell_end(now)
        self._ended = True
        if self.joined is not None:
            if now:
                self.joined.abort()
            self.joined.close()  # while the workers do: each rank waits for the others
        self._wait_ended(now)
        if self.joined is not None:
            self.joined.wait_closed()
        if self.plans is not None:
            self.plans.close()

    @abstractmethod
    def _tell_end(self, now: bool) -> None:
        """End the processes or their part in this engine, without waiting for it."""

    def _wait_ended(self, now: bool) -> None:
        """Wait for a limited time until what `_tell_end` began is done."""

    def _join(self, make: Callable[[], Joined], device: torch.device) -> Joined:
        self.joined = joined = self.watched(make, device)
        self.watch.abort = joined.abort
        return joined


class LocalRanks(Ranks):
    """Worker processes on this host, which end with this object or with this process."""

    plan_transport = "shared_memory"

    def __init__(self, cfg: Settings, num_threads: int) -> None:
        from torch.distributed import TCPStore

        super().__init__(cfg)
        before = open_sockets()
        listener = socket.create_server(("127.0.0.1", 0))  # a port that is free; torch itself would take all interfaces
        self._store = TCPStore(
            "127.0.0.1",
            listener.getsockname()[1],
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=self.limit_s),
            master_listen_fd=listener.detach(),
        )
        self._store_sockets = open_sockets() - before
        self._workers: list[WorkerProcess] = []
        self._end_by_s: float | None = None
        ring = self.plans = self._ring = RingWriter(self.size - 1, self._check)
        try:
            for rank in range(1, self.size):
                self._workers.append(start_worker(rank, ring, num_threads))
            for socket_ in ring.reader_sockets:
                socket_.close()
            for worker in self._workers:
                start = start_message(cfg, name=self.name, rank=worker.rank, size=self.size, threads=num_threads)
                worker.channel.send(start=start | {"port": self._store.port})
        except BaseException:
            for worker in self._workers:
                worker.end(now=True)
            ring.close()
            raise
        peers = [Peer(one.rank, one.channel, one.describe_end, one.kill) for one in self._workers]
        self.watch = Watch(peers, self.progress, cfg.executor.heartbeat_s, self.limit_s)

    def join(self, choices: Choices) -> Joined:
        return self._join(lambda: join(choices, self._store, self.name, 0, self.progress, local=True), choices.device)

    def _check(self) -> None:
        self.watch.check()
        if self._end_by_s is not None and time.monotonic() > self._end_by_s:
            raise PeerError(f"a worker takes no more plans: none for {_END_S:g} s while the engine ends")

    def _tell_end(self, now: bool) -> None:
        if now:
            for worker in self._workers:
                worker.kill()
            shut_down(self._store_sockets)  # a start that waits there for a rank that is lost
        else:
            self._end_by_s = time.monotonic() + _END_S
            self._ring.send(b"")

    def _wait_ended(self, now: bool) -> None:
        for worker in self._workers:
            worker.end(now=now)


def start_ranks(cfg: Settings, num_threads: int) -> Ranks:
    """The ranks above 0 of one engine: torchrun's if it started this process, else new processes."""
    if world_rank() is None:
        return LocalRanks(cfg, num_threads)
    from framework.execution.parallel.torchrun import TorchrunRanks

    return TorchrunRanks(cfg, num_threads)


def threads_per_rank(executor: LocalSettings) -> int:
    """`executor.threads`, or this process's cores shared among the ranks on this host."""
    if executor.threads is not None:
        return executor.threads
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", executor.tp))
    return max(1, len(os.sched_getaffinity(0)) // num_local)
