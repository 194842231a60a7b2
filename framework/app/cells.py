"""Cells from Python: what `run.py` does on the command line, for notebooks and scripts."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from framework.app.experiment import hydra_cell, run_cell
from framework.app.launching.folder import FolderTakenError, claim_run, release
from framework.config.compose import compose_with_hydra
from framework.config.quote import quote

if TYPE_CHECKING:
    import pandas as pd

    from framework.records.record import Record


def run(overrides: Sequence[str] = (), *, folder: str | Path | None = None, show: bool = False) -> Record:
    """Run one cell in this process and return its record, which is on disk as well.

    Plugins that were registered in this process, such as those of a notebook, can be chosen.

    Args:
        overrides: as on the command line: `["scheduler=mlfq", "executor=simulated"]`.
        folder: where the record goes; None: below `outputs/`, as with `run.py`.
        show: print what `run.py` would print; warnings and errors appear either way.

    Raises:
        ValueError: the configuration does not compose, `folder` holds a record, or none can be written there. A cell
            that fails while it runs raises nothing: see `status`, `reason` and `traceback` of its record.
    """
    from framework.records.record import read_record

    cfg, hydra = compose_with_hydra(overrides)
    where = Path(hydra.run.dir if folder is None else folder).absolute()
    try:
        claim_run(where)
    except FolderTakenError as error:
        raise ValueError(str(error).replace("set hydra.run.dir to", "pass")) from error
    except OSError as error:
        raise ValueError(f"{where} cannot be made: {error.strerror}; pass another folder") from error
    try:
        with contextlib.nullcontext() if show else contextlib.redirect_stdout(io.StringIO()):
            run_cell(cfg, hydra_cell(cfg, hydra, where))
    finally:
        release(where)
    return read_record(where)


def sweep(overrides: Sequence[str], *, folder: str | Path) -> pd.DataFrame:
    """Run every combination of `overrides`, as `run.py -m` does, and return one row per cell (`analysis.load`).

    Cells run in processes of their own, so a plugin has to be in a file: `plugins=[mine.py]`. If `folder` holds a part
    of the same sweep, only what is missing runs.

    Args:
        overrides: `["scheduler=mlfq,fair", "seed=range(5)", "executor=simulated"]`.
        folder: where the sweep goes.

    Raises:
        ValueError: the sweep could not start, or no cell completed; the message is that of the command.
    """
    from framework.records.analysis import load

    where = Path(folder).absolute()
    again = [f"resume={where}"] if (where / "sweep.json").exists() else [f"hydra.sweep.dir={quote(str(where))}"]
    command = [sys.executable, "-m", "framework", "sweep", *overrides, *again]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2 or not any(where.glob("*/summary.json")):
        raise ValueError(done.stderr.strip() or done.stdout.strip() or f"the sweep ended with {done.returncode}")
    return load(where)
