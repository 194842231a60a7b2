"""A worker's side of the control channel. It reports progress, and it ends the worker when rank 0 is gone."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from framework.execution.parallel.control import Channel, Message, readable
from framework.models.layers.group import PeerError, Phase, Progress

INTERVAL_S = 0.25


class Heartbeat:
    """A thread that needs neither torch nor the main thread, only the interpreter.

    Args:
        when_gone: what to do when rank 0 is; None ends this process.
    """

    def __init__(self, channel: Channel, *, when_gone: Callable[[], NoReturn] | None = None) -> None:
        self.progress = Progress()
        self._channel, self._when_gone = channel, when_gone or partial(os._exit, 1)
        self._starts: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._main = threading.get_ident()
        self._channel.send(name=f"process {os.getpid()} on {socket.gethostname()}")
        threading.Thread(target=self._run, name="servelab-heartbeat", daemon=True).start()

    def next_start(self) -> Message:
        """Wait for rank 0 to say what kind of engine it wants."""
        return self._starts.get()

    def begin(self) -> Progress:
        """Start to report the progress of a new engine, from its first phase on."""
        self.progress = Progress(phase=Phase.IMPORT)
        return self.progress

    def ready(self, **found: object) -> None:
        """Report that this rank is built, with what was found out."""
        self._send(ready=found)

    def fail(self, error: BaseException) -> NoReturn:
        """Report `error` and wait for rank 0 to end this process."""
        text = traceback.format_exc()
        summary = f"{type(error).__name__}: {' '.join(str(error).split())}"
        self._send(failed=summary, traceback=text, lost_peer=isinstance(error, PeerError))
        while True:
            threading.Event().wait()

    def _run(self) -> None:
        while True:
            if not readable(self._channel.socket, INTERVAL_S):
                self._send(beat=self.progress.count, phase=self.progress.phase)
                continue
            messages, alive = self._channel.receive_ready()
            if not alive:
                self._when_gone()
            for message in messages:
                if "start" in message:
                    self._starts.put(message["start"])
                elif "dump" in message:
                    frame = sys._current_frames().get(self._main)
                    self._send(stack="".join(traceback.format_stack(frame)))

    def _send(self, **message: object) -> None:
        try:
            self._channel.send(**message)
        except OSError:
            self._when_gone()
