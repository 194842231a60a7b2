"""The process of one cell: a fork of the launcher, which has loaded Hydra and the plugins but no torch and no CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

LOG = "cell.log"
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux' prctl


@dataclass(slots=True)
class Child:
    """A running cell."""

    process: BaseProcess
    gpus: list[str]
    started_s: float = field(default_factory=time.monotonic)

    def interrupt(self) -> None:
        """Send Ctrl-C to the main process of the cell, which then writes its record. Its helpers end with it."""
        _send(os.kill, self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the cell and everything that it started, at once."""
        _send(os.kill, self.process.pid, signal.SIGKILL)  # it may not have its group yet
        self.process.join()
        self.kill_rest()

    def kill_rest(self) -> None:
        """End what an ended cell has left behind."""
        _send(os.killpg, self.process.pid, signal.SIGKILL)

    def how_it_ended(self) -> str:
        """The exit code or signal in words; "" for a normal end."""
        code = self.process.exitcode
        assert code is not None
        if code >= 0:
            return f"exit code {code}" if code else ""
        name = signal.Signals(-code).name
        hint = " (not by this sweep: when memory runs out the kernel does that)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"


def start(run: Callable[[], object], folder: Path, gpus: list[str]) -> Child:
    """Call `run` in a new process, with `gpus` only, and with its output in `folder`.

    Raises:
        ValueError: CUDA is in use here already, so that no fork could use it.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise ValueError(
            "a plugin uses CUDA when it is imported, and a forked process could not use it again: move that into the "
            "plugin's methods, or set hydra/launcher=in_process"
        )
    process = multiprocessing.get_context("fork").Process(target=_main, args=(run, folder, gpus, os.getpid()))
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads. This process starts none; numpy's and pyarrow's idle ones are
        # stopped or reset by their own fork handlers.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return Child(process, gpus)


def _main(run: Callable[[], object], folder: Path, gpus: list[str], parent: int) -> None:
    os.setsid()  # a group of its own: Ctrl-C reaches the launcher only, and a kill reaches all that the cell started
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt_once)
    _die_with(parent)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    sys.stdout, sys.stderr = _Log(1), _Log(2)
    run()


class _Log(io.TextIOWrapper):
    """Drop output when the disk is full, rather than end the cell."""

    def __init__(self, descriptor: int) -> None:
        buffer = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _interrupt_once(number: int, frame: object) -> None:
    # Linux announces a parent's death once for each of its threads, and a second Ctrl-C would kill.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt("SIGTERM")


def _die_with(parent: int) -> None:
    """Ask to be told if the launcher is killed, since it can then no longer interrupt its cells."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        raise KeyboardInterrupt


def _send(kill: Callable[[int, int], None], pid: int | None, number: int) -> None:
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):  # it ended on its own
        kill(pid, number)
