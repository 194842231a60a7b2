"""Messages from one process to several on the same host, through anonymous shared memory.

The memory has no name (`memfd_create`), so nothing is left in /dev/shm however the processes end. Each reader has a
socket on which the writer says how many bytes lie ready and the reader answers when it has taken them: that wakes a
sleeping reader, holds the writer back when the memory is full, and ends when either side dies.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

from framework.execution.parallel.control import readable
from framework.models.layers.group import PeerError

_BELL = struct.Struct("<IB")
"""The number of bytes that lie ready, and whether more of the same message follow."""
_MAX_UNREAD = 64
"""How many pieces a reader may be behind. A plan is made at most two steps ahead, so this is rarely reached."""
RING_BYTES = 4 << 20


class RingWriter:
    """The sending end.

    Args:
        check: called some times per second while a reader holds the writer back; raises to give up.
    """

    def __init__(self, num_readers: int, check: Callable[[], None], *, num_bytes: int = RING_BYTES) -> None:
        self.fd = os.memfd_create("servelab-plans")
        os.ftruncate(self.fd, num_bytes)
        self._memory = mmap.mmap(self.fd, num_bytes)
        pairs = [socket.socketpair() for _ in range(num_readers)]
        self._bells = [mine for mine, _ in pairs]
        self.reader_sockets = [theirs for _, theirs in pairs]
        """The sockets to hand to the readers' processes and to close here."""
        self._unread: list[deque[int]] = [deque() for _ in pairs]
        self._num_unread_bytes = [0] * num_readers
        self._position = 0
        self._check = check

    def send(self, message: bytes) -> None:
        """Give `message` to every reader, waiting only while one of them is far behind. An empty message is the end.

        Raises:
            PeerError: a reader is gone.
        """
        limit = len(self._memory) // 2
        start = 0
        while True:
            piece = message[start : start + limit]
            start += len(piece)
            self._make_room(len(piece))
            self._put(piece)
            bell = _BELL.pack(len(piece), start < len(message))
            for reader, socket_ in enumerate(self._bells):
                self._unread[reader].append(len(piece))
                self._num_unread_bytes[reader] += len(piece)
                try:
                    socket_.sendall(bell)
                except OSError as error:
                    raise PeerError(f"rank {reader + 1} takes no more plans ({error})") from error
            if start >= len(message):
                return

    def close(self) -> None:
        """Give the memory back. Readers see the end. Calling it again does nothing."""
        for socket_ in (*self._bells, *self.reader_sockets):
            socket_.close()
        if not self._memory.closed:
            self._memory.close()
            os.close(self.fd)

    def _put(self, piece: bytes) -> None:
        first = min(len(piece), len(self._memory) - self._position)
        self._memory[self._position : self._position + first] = piece[:first]
        self._memory[: len(piece) - first] = piece[first:]
        self._position = (self._position + len(piece)) % len(self._memory)

    def _make_room(self, num_bytes: int) -> None:
        for reader, socket_ in enumerate(self._bells):
            while len(self._unread[reader]) >= _MAX_UNREAD or self._num_unread_bytes[reader] + num_bytes > len(
                self._memory
            ):
                if not readable(socket_, 0.1):
                    self._check()
                    continue
                taken = socket_.recv(_MAX_UNREAD)
                if not taken:
                    raise PeerError(f"rank {reader + 1} is gone")
                for _ in taken:
                    self._num_unread_bytes[reader] -= self._unread[reader].popleft()


class RingReader:
    """A receiving end, made from the file descriptors that the writer's process passed on."""

    def __init__(self, memory_fd: int, bell_fd: int) -> None:
        self._memory = mmap.mmap(memory_fd, os.fstat(memory_fd).st_size, prot=mmap.PROT_READ)
        os.close(memory_fd)
        self._bell = socket.socket(fileno=bell_fd)
        self._position = 0

    def receive(self) -> bytes:
        """Wait for the next message. It is empty at the end, also when the writer dies."""
        pieces = []
        while True:
            bell = self._bell.recv(_BELL.size, socket.MSG_WAITALL)
            if len(bell) < _BELL.size:
                return b""
            num_bytes, more = _BELL.unpack(bell)
            pieces.append(self._take(num_bytes))
            try:
                self._bell.send(b"\1")
            except OSError:
                return b""
            if not more:
                return b"".join(pieces)

    def _take(self, num_bytes: int) -> bytes:
        first = min(num_bytes, len(self._memory) - self._position)
        piece = self._memory[self._position : self._position + first] + self._memory[: num_bytes - first]
        self._position = (self._position + num_bytes) % len(self._memory)
        return piece
