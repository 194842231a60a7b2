"""Learns from Hydra what a sweep does, whichever launcher and sweeper run it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from framework.app.launching.ending import read_summary
from framework.app.launching.folder import claim_run, was_removed
from framework.app.launching.jobs import new_sweep
from framework.app.launching.resume import own_overrides
from framework.app.launching.resume_key import note_imported
from framework.app.launching.sweep_file import Cell, Sweep, live_sweep
from framework.records.record import SUMMARY

_begun: list[DictConfig] = []


class NoteFolder(Callback):
    """Claims the folder of a single run, and tells `end_sweep` what ran, which Hydra does not say.

    Sources are noted here and not before, so that a typing mistake is answered without reading them.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        note_imported()
        with contextlib.suppress(OSError):  # it cannot be made, which Hydra says next
            claim_run(Path(str(config.hydra.run.dir)).absolute())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        note_imported()
        _begun.append(config)


def gone_sweep() -> Path | None:
    """The folder of the multirun that this process runs, if it was removed after the run began."""
    folder = Path(str(_begun[-1].hydra.sweep.dir)).absolute() if _begun else None
    return folder if folder is not None and was_removed(folder) else None


def end_sweep() -> Sweep | None:
    """Complete and return `sweep.json` of the multirun that this process ran; None if there was none, or no cell.

    Cells of launchers that keep no account (Ray, Slurm) are taken from their records.
    """
    if not _begun:
        return None
    config = _begun.pop()
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    if not folder.is_dir():
        return None
    sweep = live_sweep(folder) or new_sweep(config)
    known = {cell.folder: cell for cell in sweep.cells}
    for path in sorted(folder.rglob(SUMMARY)):
        where = str(path.parent.relative_to(folder))
        summary = read_summary(path.parent)
        if summary is not None and where not in known:
            cell = Cell(folder=where, overrides=own_overrides(path.parent))
            cell.status, cell.reason = summary["status"], summary["reason"]
            sweep.cells.append(cell)
    sweep.end()
    return sweep
