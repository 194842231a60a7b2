"""The folder of a sweep or a run is its own: nothing else writes into it, at the same time or later."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from framework.app.launching.sweep_file import SWEEP
from framework.records.record import SUMMARY

_locks: dict[Path, int] = {}


def claim(folder: Path, *, resume: bool = False) -> None:
    """Make `folder` this process's for as long as it lives; once is enough.

    Raises:
        ValueError: another sweep runs there, or has left records and `resume` is not asked for.
    """
    if folder in _locks:
        return
    lock = _lock(folder, f"{folder}: a sweep runs there now; wait for it, or set hydra.sweep.dir to another")
    if not resume and ((folder / SWEEP).exists() or next(folder.rglob(SUMMARY), None)):
        os.close(lock)
        raise ValueError(
            f"{folder} holds the records of another sweep; set hydra.sweep.dir to a new folder, or "
            f"resume={folder} to run what it has not completed"
        )
    _locks[folder] = lock


class FolderTakenError(BaseException):
    """A single run must not write into the folder that it was given.

    It is not an `Exception`, since Hydra turns an `Exception` of a callback into a warning. A callback is all that
    Hydra calls before it writes into the folder.
    """


def claim_run(folder: Path) -> None:
    """Make `folder` that of the single run of this process.

    Raises:
        FolderTakenError: it holds a record, belongs to a sweep, or another run writes into it now.
    """
    for around in (folder, folder.parent):
        if (around / SWEEP).exists():
            raise FolderTakenError(f"{folder} belongs to the sweep in {around}; set hydra.run.dir to a new folder")
    if (folder / SUMMARY).exists():
        raise FolderTakenError(f"{folder} holds the record of another run; set hydra.run.dir to a new folder")
    try:
        _locks[folder] = _lock(folder, f"{folder}: another run writes there now; set hydra.run.dir to a new folder")
    except ValueError as error:
        raise FolderTakenError(str(error)) from error


def release(folder: Path) -> None:
    """Let others write into `folder` again, as at the end of this process."""
    os.close(_locks.pop(folder))


def _lock(folder: Path, taken: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ValueError(taken) from None
    return lock


def was_removed(folder: Path) -> bool:
    """Whether the folder that this process claimed is gone, even if another one of its name has been made since."""
    if folder not in _locks:
        return False
    try:
        return not os.path.samestat(os.fstat(_locks[folder]), folder.stat())
    except FileNotFoundError:
        return True
