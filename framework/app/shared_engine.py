"""One engine for several callers at once, in one or many threads. Each caller gets the outputs of its own requests."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from framework.engine.engine import Engine
    from framework.engine.output import RequestOutput
    from framework.interfaces.request import RequestSpec

T = TypeVar("T")

_GIVE_WAY_S = 1e-4


class SharedEngine:
    """Callers take turns at the engine, one step each, and every step runs the requests of all of them.

    An interrupt (Ctrl-C) may strike anywhere: no output is lost or seen twice by the callers that it does not end. So a
    caller keeps a list of its ids, to which `add` appends before the engine knows of them, and gives it to `leave` in
    the end, whatever happens.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = threading.Lock()
        self._waiting: set[object] = set()
        """A token for each caller that waits for its turn."""
        self._news: dict[int, deque[RequestOutput]] = {}
        """Outputs of live callers' requests that their callers have not taken yet."""
        self._left: deque[int] = deque()
        """Requests whose callers have gone while another thread had the turn."""
        self._closed = False
        self._process_id = os.getpid()

    def add(self, mine: list[int], spec: RequestSpec) -> None:
        """Add a request to the engine, and its id to `mine`.

        Raises:
            ValueError: the request is refused. Nothing else is disturbed.
        """

        def add() -> None:
            request_id = self.engine.next_id
            self._news[request_id] = deque()
            mine.append(request_id)
            try:
                self.engine.add_request(spec)
            except ValueError:
                mine.pop()
                del self._news[request_id]
                raise

        self._in_turn(add)

    def next(self, request_id: int) -> RequestOutput:
        """The next output of a request that has not ended, stepping the engine until there is one.

        Raises:
            Exception: whatever a step raised. If the step ended requests, their last outputs say so instead.
        """
        while (output := self._in_turn(lambda: self._take_or_step(request_id))) is None:
            if self._waiting:
                time.sleep(_GIVE_WAY_S)  # a lock does not go to the thread that has waited longest
        return output

    def leave(self, mine: Iterable[int]) -> None:
        """Forget these requests, and end those that still run. Never waits, since it may be called from anywhere by the
        garbage collector: the thread that has the turn does the work."""
        self._left.extend(mine)
        self._tidy_if_idle()

    def close(self) -> None:
        """Close the engine once the step that runs has ended; calls that wait, and later ones, raise. Idempotent. A
        forked process leaves alone what belongs to its parent."""
        self._closed = True
        if os.getpid() == self._process_id:
            with self._turn:
                self.engine.close()

    def _take_or_step(self, request_id: int) -> RequestOutput | None:
        news = self._news[request_id]
        if not news:
            self._step()
        return news.popleft() if news else None

    def _step(self) -> None:
        try:
            self.engine.advance()
        except Exception:
            if not any(output.error for output in self.engine.outbox):
                raise
        finally:
            self._sort()

    def _sort(self) -> None:
        """Hand out what the engine brought. An output leaves the outbox last, so that an interrupt repeats this."""
        outbox = self.engine.outbox
        while outbox:
            output = outbox[0]
            news = self._news.get(output.request_id)
            if news is not None and not (news and news[-1] is output):
                news.append(output)
            outbox.popleft()

    def _in_turn(self, call: Callable[[], T]) -> T:
        token = object()
        try:
            self._check()  # before the lock, which is never released in a forked process
            self._waiting.add(token)
            with self._turn:
                self._waiting.discard(token)
                self._check()
                self._sort()
                self._tidy()
                return call()
        finally:
            self._waiting.discard(token)
            self._tidy_if_idle()

    def _check(self) -> None:
        if os.getpid() != self._process_id:
            raise ValueError(
                f"this LLM was opened by process {self._process_id} and cannot be used in process {os.getpid()}, which "
                f"was forked from it: threads and device stay with the parent. Build one here, or start the process by "
                f"'spawn'"
            )
        if self._closed:
            raise ValueError("this LLM was closed; build another one, or close it later")

    def _tidy_if_idle(self) -> None:
        is_over = self._closed or os.getpid() != self._process_id
        while self._left and not is_over and self._turn.acquire(blocking=False):
            try:
                self._tidy()
            finally:
                self._turn.release()

    def _tidy(self) -> None:
        while self._left:
            request_id = self._left[0]
            self._news.pop(request_id, None)
            self.engine.abort(request_id)
            self._left.popleft()
