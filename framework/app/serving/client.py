"""The HTTP process's side of the link. It sends requests and gives the news of each to the waiting coroutine."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any

from framework.app.serving.wire import Abort, Accepted, Add, Draining, Link, News, Refused, Stats
from framework.interfaces.sampling_params import SamplingParams


class RefusedError(Exception):
    """The engine does not serve a request. `status` is the HTTP status, the text says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Call:
    """One prompt at the engine: an iterator over its news."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.news: deque[News] = deque()
        self.accepted = False
        self.refusal: Refused | None = None
        self.ended = False
        self._changed = asyncio.Event()

    def push(self, message: Any) -> None:
        """Called on the event loop's thread."""
        if isinstance(message, News):
            self.news.append(message)
        elif isinstance(message, Refused):
            self.refusal = message
        else:
            self.accepted = True
        self._changed.set()

    async def admitted(self) -> None:
        """Return when the engine has queued it.

        Raises:
            RefusedError: it has not.
        """
        while not self.accepted and self.refusal is None and not self.news:
            await self._wait()
        if self.refusal is not None:
            self.ended = True
            raise RefusedError(self.refusal.status, self.refusal.message)

    async def take(self) -> list[News]:
        """The news since the last call. Waits until there is some. The last news has a `finish_reason`.

        Raises:
            RefusedError: the engine is gone.
        """
        while not self.news:
            if self.refusal is not None:
                raise RefusedError(self.refusal.status, self.refusal.message)
            await self._wait()
        taken = list(self.news)
        self.news.clear()
        self.ended = taken[-1].finish_reason is not None
        return taken

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class EngineClient:
    """Adds and aborts requests. Lives on one event loop."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, *, on_closed: Any) -> None:
        self.stats: dict[str, Any] = {}
        self.draining = False
        self._link, self._loop, self._on_closed = link, loop, on_closed
        self._calls: dict[int, Call] = {}
        self._keys = itertools.count()
        link.read(
            lambda batch: loop.call_soon_threadsafe(self._deliver, batch),
            lambda: loop.call_soon_threadsafe(self._closed),
        )

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._calls)

    def add(self, prompt: list[int], params: SamplingParams, *, priority: int = 0, client: str = "") -> Call:
        """Send a prompt to the engine."""
        key = next(self._keys)
        call = self._calls[key] = Call(key)
        self._link.send(Add(key, prompt, params, priority, client))
        return call

    def abort(self, call: Call) -> None:
        """Abort `call`, because its caller has gone. Calling it again does nothing."""
        if self._calls.pop(call.key, None) is not None and not call.ended:
            self._link.send(Abort(call.key))

    def _deliver(self, batch: list[Any]) -> None:
        for message in batch:
            if isinstance(message, Stats):
                self.stats = message.values
            elif isinstance(message, Draining):
                self.draining = True
            elif isinstance(message, News | Accepted | Refused) and (call := self._calls.get(message.key)):
                call.push(message)

    def _closed(self) -> None:
        for call in self._calls.values():
            call.push(Refused(call.key, 503, "the engine has ended"))
        self._on_closed()
