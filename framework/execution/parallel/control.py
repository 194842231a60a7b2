"""Short messages between rank 0 and a worker beside the plans: start, heartbeat, failure. One JSON object per line."""

from __future__ import annotations

import json
import select
import socket
import threading
from typing import Any

Message = dict[str, Any]


def readable(connection: socket.socket, limit_s: float) -> bool:
    """Whether something (the end included) can be received within `limit_s`."""
    poll = select.poll()  # not select(), which knows 1024 descriptors
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))


class Channel:
    """One end of a connected stream socket. Sending is safe from several threads, receiving from one."""

    def __init__(self, connection: socket.socket, received: bytes = b"") -> None:
        self.socket = connection
        self.name = ""
        """The process and host at the other end, once it has reported them."""
        self._lock = threading.Lock()
        self._received = received

    def send(self, **message: Any) -> None:
        """Send one message.

        Raises:
            OSError: the other end is gone.
        """
        with self._lock:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive_ready(self) -> tuple[list[Message], bool]:
        """The messages that have arrived, once the socket is readable, and whether the other end is still there."""
        alive = self._read()
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines], alive

    def close(self) -> None:
        """Close this end, which the other end notices. Calling it again does nothing."""
        self.socket.close()

    def _read(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            return False
        self._received += data
        return bool(data)
