"""The rows of a cell for a figure; those that cannot be read cost the figure one cell, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from framework.records.analysis.cells import Damaged, first_line


def read_columns(path: Path, names: Sequence[str], damaged: list[Damaged]) -> pa.Table | None:
    """These columns of a table of a record; None, with an entry in `damaged`, if they cannot be read."""
    try:
        return pq.read_table(path, columns=list(names)).select(list(names))
    except (OSError, KeyError, pa.ArrowException) as error:
        one = Damaged(path.parent, f"{path.name} cannot be read, so it is in no figure: {first_line(error)}")
        if one not in damaged:
            damaged.append(one)
        return None
