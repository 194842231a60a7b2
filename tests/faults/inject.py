"""Raises an error at a chosen line of the framework's own Python, as an interrupt or a lack of memory would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import framework

ROOT = Path(framework.__file__).parents[1]
HOST = tuple(str(ROOT / folder) for folder in ("framework/engine", "framework/toolkit", "framework/app", "plugins"))
"""Code that plans, delivers and hands out, on the thread that calls the engine"""


class Fault:
    """Whether the fault was raised, and where."""

    where = ""


@contextmanager
def fault_at(line: int, error: BaseException, folders: tuple[str, ...] = HOST) -> Iterator[Fault]:
    """Inside, the `line`-th line of those folders that this thread would run raises `error` instead, once."""
    fault = Fault()
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(folders):
            return None
        if event == "line":
            left -= 1
            if left < 0:
                fault.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise error  # which ends the tracing
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield fault
    finally:
        sys.settrace(before)
