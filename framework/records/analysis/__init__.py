"""Comparing records and policies, after or without a run.

In a notebook::

    from framework import analysis

    cells = analysis.load("multirun/2026-01-31/12-00-00")     # a row per cell
    cells.groupby("scheduler")["ttft_s/p99"].mean()
    analysis.compare("multirun/...", baseline=["scheduler=prefill_first"]).frame()
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pandas takes half a second, and this package holds what needs none
    import pandas as pd

    from framework.records.analysis.comparison import Comparison

__all__ = ["compare", "load"]


def load(folders: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """Every record below `folders`, a row each, whatever became of the cell.

    Columns: `folder`, `status`, `reason`; the configuration asked for, by dotted key (`scheduler`, `seed`,
    `engine.num_blocks`); what came of it and where it ran (`effective.attention`, `environment.device_name`); the
    metrics (`ttft_s/p99`), NaN where undefined. The rows of a cell are `pandas.read_parquet(folder /
    "requests.parquet")` and `steps.parquet`. Damaged records are left out; `frame.attrs["damaged"]` names them.

    Raises:
        ValueError: a folder does not exist or holds no readable record.
    """
    import pandas as pd

    from framework.records.analysis.cells import find

    cells, damaged = find(_list(folders))
    frame = pd.DataFrame(
        [{"folder": c.folder, "status": c.status, "reason": c.reason, **c.keys, **c.metrics} for c in cells]
    )
    frame.attrs["damaged"] = [str(one) for one in damaged]
    return frame


def compare(folders: str | Path | Sequence[str | Path], **options: Any) -> Comparison:
    """What `python -m framework compare` prints; options: those of `analysis.pairing.compare_cells`."""
    from framework.records.analysis.pairing import compare_cells

    return compare_cells(_list(folders), **options)


def _list(folders: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [folders] if isinstance(folders, str | Path) else list(folders)
