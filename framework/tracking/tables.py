"""Lists of record dataclasses to and from Parquet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from framework.tracking.atomic import replacing

R = TypeVar("R")

_ARROW = {
    "int": pa.int64(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "str": pa.string(),
    "Sequence[float]": pa.list_(pa.float64()),
}


def write_rows(path: Path, rows: list[Any], row_type: type) -> None:
    """Write `rows`, dataclasses of `row_type`, a column a field, atomically. No rows give an empty table."""
    # The schema comes from the annotations, so that an empty or all-None column has its type all the same.
    schema = pa.schema([(f.name, _ARROW[str(f.type)]) for f in dataclasses.fields(row_type)])
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")


def read_rows(path: Path, row_type: type[R]) -> list[R]:
    """The rows that `write_rows` wrote."""
    return [row_type(**row) for row in pq.read_table(path).to_pylist()]
