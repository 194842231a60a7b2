"""The engine's only source of time, so that a virtual clock can take the real one's place."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_s(self) -> float:
        """Seconds since `restart`."""

    def sleep_until(self, time_s: float) -> None:
        """Return when `now_s() >= time_s`."""

    def restart(self) -> None:
        """Make this moment 0. Called when warm-up is over."""


class RealClock:
    """Wall time from a monotonic counter."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def now_s(self) -> float:
        return time.perf_counter() - self._start

    def sleep_until(self, time_s: float) -> None:
        while (left_s := time_s - self.now_s()) > 0:
            time.sleep(left_s)

    def restart(self) -> None:
        self._start = time.perf_counter()


class VirtualClock:
    """The clock of every simulation: time passes only when the engine sleeps or the simulated device works."""

    __slots__ = ("time_s",)

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s

    def sleep_until(self, time_s: float) -> None:
        if time_s > self.time_s:
            self.time_s = time_s

    def restart(self) -> None:
        self.time_s = 0.0


class PacedClock(VirtualClock):
    """Virtual time that keeps pace with wall time, for a simulation that clients talk to.

    Simulated work moves it ahead, as in any simulation. `sleep_until` really sleeps.
    """

    __slots__ = ("_start",)

    def __init__(self) -> None:
        super().__init__()
        self._start = time.perf_counter()

    def now_s(self) -> float:
        self.time_s = max(self.time_s, time.perf_counter() - self._start)
        return self.time_s

    def sleep_until(self, time_s: float) -> None:
        while (left_s := time_s - (time.perf_counter() - self._start)) > 0:
            time.sleep(left_s)
        super().sleep_until(time_s)

    def restart(self) -> None:
        super().restart()
        self._start = time.perf_counter()
