"""Ends a piece of Python code that does not return, such as a plugin's endless loop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_AGAIN_S = 0.5
"""An exception inside a destructor or a collection of garbage is dropped by Python: then raise it once more."""


class TimeLimitError(Exception):
    """The code inside `time_limit` did not return in time."""


@contextmanager
def time_limit(limit_s: float) -> Iterator[None]:
    """Raise `TimeLimitError` inside after `limit_s`. Only the main thread can be interrupted; elsewhere no limit holds.

    A timer that was running before, such as that of a test runner, goes on with what is left of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: object) -> None:
        raise TimeLimitError(f"did not return within {limit_s:g} s")

    previous = signal.signal(signal.SIGALRM, expire)
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_S)
    started_s = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left_s - (time.monotonic() - started_s)), interval_s)
