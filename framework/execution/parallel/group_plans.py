"""Plans from rank 0 to ranks on several hosts, broadcast through a process group of their own."""

from __future__ import annotations

import struct
from collections import deque
from typing import Any

import torch
from torch.distributed.distributed_c10d import BroadcastOptions

from framework.models.layers.group import PeerError

_FIRST_BYTES = 2048
"""Broadcast at once, whatever the message; a steady decode step fits. Longer ones take a second broadcast."""
_LENGTH = struct.Struct("<Q")
_MAX_IN_FLIGHT = 16


class GroupWriter:
    """Rank 0's end. The process group has to work on CPU tensors."""

    def __init__(self, process_group: Any) -> None:
        self._group = process_group
        self._in_flight: deque[tuple[Any, torch.Tensor]] = deque()

    def send(self, message: bytes) -> None:
        """Give `message` to every rank, waiting only while they are far behind. Empty: the end.

        Raises:
            PeerError: a rank is gone.
        """
        framed = _LENGTH.pack(len(message)) + message
        first = framed[:_FIRST_BYTES].ljust(_FIRST_BYTES, b"\0")
        self._broadcast(first)
        if len(framed) > _FIRST_BYTES:
            self._broadcast(framed[_FIRST_BYTES:])

    def close(self) -> None:
        """Idempotent."""
        self._in_flight.clear()

    def _broadcast(self, data: bytes) -> None:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        try:
            self._in_flight.append((_broadcast(self._group, buffer), buffer))
            while len(self._in_flight) > _MAX_IN_FLIGHT:
                self._in_flight.popleft()[0].wait()
        except RuntimeError as error:
            raise PeerError(f"a rank takes no more plans: {error}") from error


class GroupReader:
    """A worker's end."""

    def __init__(self, process_group: Any) -> None:
        self._group = process_group

    def receive(self) -> bytes:
        """The next message, waiting for it; empty at the end.

        Raises:
            PeerError: rank 0 is gone.
        """
        first = self._read(_FIRST_BYTES)
        (num_bytes,) = _LENGTH.unpack_from(first)
        framed = first[_LENGTH.size :]
        if num_bytes > len(framed):
            framed += self._read(num_bytes - len(framed))
        return framed[:num_bytes]

    def _read(self, num_bytes: int) -> bytes:
        buffer = torch.empty(num_bytes, dtype=torch.uint8)
        try:
            _broadcast(self._group, buffer).wait()
        except RuntimeError as error:
            raise PeerError(f"rank 0 sends no more plans: {error}") from error
        return buffer.numpy().tobytes()


def _broadcast(group: Any, buffer: torch.Tensor) -> Any:
    options = BroadcastOptions()
    options.rootRank = 0
    return group.broadcast([buffer], options)
