"""The messages between the HTTP process and the engine process, over a pair of sockets that only they hold."""

from __future__ import annotations

import contextlib
import pickle
import queue
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from framework.interfaces.executor import TokenLogprobs
from framework.interfaces.sampling_params import SamplingParams

_LENGTH = struct.Struct("!Q")


@dataclass(slots=True)
class Add:
    """Tells the engine to serve this prompt. `key` names it from now on."""

    key: int
    prompt_token_ids: list[int]
    params: SamplingParams
    priority: int = 0
    client: str = ""


@dataclass(slots=True)
class Abort:
    """Tells the engine that the client has gone, or that the text contains a stop string."""

    key: int


@dataclass(slots=True)
class Accepted:
    """The engine says that the request is queued."""

    key: int


@dataclass(slots=True)
class Refused:
    """The engine says that it will not serve the request. `status` is the HTTP status to answer with."""

    key: int
    status: int
    message: str


@dataclass(slots=True)
class News:
    """The engine says what one step brought to one request."""

    key: int
    token_ids: list[int]
    finish_reason: str | None = None
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    """Those of the prompt's tokens from the second on, if they were asked for, with the first token."""
    num_cached_tokens: int = 0
    error: str = ""


@dataclass(slots=True)
class Stats:
    """The engine says, twice per second, what /metrics and the status page show."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Draining:
    """The engine says that no further request is accepted."""


class Link:
    """One end of the pair. Messages travel in batches; a writer thread sends them, so `send` never waits.

    Both ends are processes of ours and the sockets have no name, so pickle is safe here.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._outbox: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="serving-writer", daemon=True)
        self._writer.start()

    def send(self, *messages: Any) -> None:
        """Hand messages to the writer."""
        self._outbox.put(list(messages))

    def read(self, deliver: Callable[[list[Any]], object], closed: Callable[[], object]) -> None:
        """Start a thread that calls `deliver` for each batch, and `closed` when the other end has gone."""

        def loop() -> None:
            try:
                stream = self._socket.makefile("rb")
                while header := stream.read(_LENGTH.size):
                    deliver(pickle.loads(stream.read(_LENGTH.unpack(header)[0])))
            except (OSError, EOFError, struct.error, pickle.UnpicklingError):
                pass  # the other end died in the middle of a message
            closed()

        threading.Thread(target=loop, name="serving-reader", daemon=True).start()

    def close(self) -> None:
        """Send what is left, then hang up."""
        self._outbox.put(None)
        self._writer.join(timeout=5)
        with contextlib.suppress(OSError):  # the other end has gone already
            self._socket.shutdown(socket.SHUT_RDWR)  # a close alone would wait for the reader
        self._socket.close()

    def _write(self) -> None:
        while (batch := self._outbox.get()) is not None:
            data = pickle.dumps(batch, protocol=5)
            try:
                self._socket.sendall(_LENGTH.pack(len(data)) + data)
            except OSError:
                return  # the reader notices, and says so
