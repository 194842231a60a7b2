"""Worker processes that an engine starts on its own host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

from framework.execution.parallel.control import Channel
from framework.execution.parallel.ring import RingWriter

_END_S = 3.0
"""The time that a worker has to end by itself once it was told to."""


@dataclass(slots=True)
class WorkerProcess:
    """A child process, the channel to it, and the memory in which a crash leaves its stack."""

    rank: int
    process: subprocess.Popen[bytes]
    channel: Channel
    crash_fd: int

    def describe_end(self) -> tuple[str, str]:
        """How the process ended, and what `faulthandler` wrote."""
        try:
            code = self.process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            return "closed its connection without ending", ""
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        return how, os.pread(self.crash_fd, 1 << 16, 0).decode(errors="replace")

    def kill(self) -> None:
        """Kill the process at once, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def end(self, *, now: bool) -> None:
        """Wait until the process is gone. Kill it if `now` or if it does not end by itself. May be repeated."""
        if now:
            self.kill()
        try:
            self.process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        self.channel.close()
        if self.crash_fd >= 0:
            os.close(self.crash_fd)
            self.crash_fd = -1


def start_worker(rank: int, ring: RingWriter, num_threads: int) -> WorkerProcess:
    """Start the process of `rank`. Its orders come over its channel.

    It runs in a process group of its own, so that Ctrl-C reaches rank 0 alone, which ends it; and it ends by itself
    when its channel does, however rank 0 died.
    """
    mine, theirs = socket.socketpair()
    crash_fd = os.memfd_create("servelab-crash")
    fds = [theirs.fileno(), ring.fd, ring.reader_sockets[rank - 1].fileno(), crash_fd]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": str(num_threads),
        "PYTHONFAULTHANDLER": "",
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "framework.execution.parallel.worker", *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            env=environment,
            process_group=0,
        )
    except BaseException:
        mine.close()
        os.close(crash_fd)
        raise
    finally:
        theirs.close()
    channel = Channel(mine)
    channel.name = f"process {process.pid}"  # until it says so itself, with its host
    return WorkerProcess(rank, process, channel, crash_fd)
