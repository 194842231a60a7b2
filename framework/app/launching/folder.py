"""A sweep's folder is its own: no second sweep writes into it, at the same time or later."""

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
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ValueError(f"{folder}: a sweep runs there now; wait for it, or set hydra.sweep.dir to another") from None
    if not resume and ((folder / SWEEP).exists() or next(folder.rglob(SUMMARY), None)):
        os.close(lock)
        raise ValueError(
            f"{folder} holds the records of another sweep; set hydra.sweep.dir to a new folder, or "
            f"resume={folder} to run what it has not completed"
        )
    _locks[folder] = lock


def was_removed(folder: Path) -> bool:
    """Whether the folder that this process claimed is gone, even if another one of its name has been made since."""
    if folder not in _locks:
        return False
    try:
        return not os.path.samestat(os.fstat(_locks[folder]), folder.stat())
    except FileNotFoundError:
        return True
