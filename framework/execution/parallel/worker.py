"""The process of a rank above 0 on the host of rank 0. Only rank 0 starts it.

Its command is `python -m framework.execution.parallel.worker FDS`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from typing import Any

from framework.execution.parallel.control import Channel
from framework.execution.parallel.heartbeat import Heartbeat
from framework.execution.parallel.ring import RingReader


def main(control_fd: int, ring_fd: int, bell_fd: int, crash_fd: int) -> None:
    """Follow rank 0 until it says that this is the end or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(file=crash_fd)
    channel = Channel(socket.socket(fileno=control_fd))
    heartbeat = Heartbeat(channel)  # before the slow imports: it also ends this process when rank 0 is gone
    reader = RingReader(ring_fd, bell_fd)
    start = heartbeat.next_start()
    from framework.execution.parallel.follow import follow

    def open_store() -> Any:
        from torch.distributed import TCPStore

        return TCPStore("127.0.0.1", start["port"], is_master=False, wait_for_workers=False)

    follow(start, heartbeat, reader.receive, open_store, local=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # not through the destructors of a process group whose peers may be gone


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
