"""A worker that hangs when it enters the phase named by SERVELAB_TEST_HANG: `plugins=[tests/parallel/hanging.py]`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from framework.models.layers.group import Phase, Progress


def _hang_here() -> None:
    while True:
        time.sleep(0.01)


def _hang_at(wanted: Phase) -> None:
    enter = Progress.enter

    def enter_or_hang(self: Progress, phase: Phase) -> None:
        enter(self, phase)
        if phase is wanted:
            _hang_here()

    Progress.enter = enter_or_hang  # type: ignore[method-assign]


_name: Any = os.environ.get("SERVELAB_TEST_HANG")
if _name and "framework.execution.parallel.worker" in sys.orig_argv:
    if _name == "IMPORT":
        _hang_here()
    _hang_at(Phase[_name])
