"""Lists of record dataclasses to and from Parquet."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from framework.records.atomic import replacing

R = TypeVar("R")

_ARROW = {
    "int": pa.int64(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "str": pa.string(),
    "Sequence[float]": pa.list_(pa.float64()),
}


def write_rows(path: Path, rows: list[Any], row_type: type) -> None:
    """Write `rows`, dataclasses of `row_type`, a column per field, atomically. No rows give an empty table."""
    # The schema comes from the annotations, so that an empty or all-None column has its type all the same.
    schema = pa.schema([(f.name, _ARROW[str(f.type)]) for f in dataclasses.fields(row_type)])
    columns = [_column([getattr(row, field.name) for row in rows], field.type) for field in schema]
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), temporary, compression="zstd")


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make a column from buffers. `pa.array` would import pandas, which is slow, and it reads lists slowly."""
    if pa.types.is_list(kind):
        items = np.frombuffer(b"".join(_doubles(value) for value in values), dtype=np.float64)
        child = pa.Array.from_buffers(pa.float64(), len(items), [None, pa.py_buffer(items)])
        return pa.Array.from_buffers(kind, len(values), [None, _offsets(values)], children=[child])
    if pa.types.is_string(kind):
        texts = [value.encode() for value in values]
        return pa.Array.from_buffers(kind, len(texts), [None, _offsets(texts), pa.py_buffer(b"".join(texts))])
    missing = np.fromiter((value is None for value in values), dtype=bool, count=len(values))
    numbers = np.array([0 if value is None else value for value in values], dtype=kind.to_pandas_dtype())
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(numbers)])


def _doubles(value: Sequence[float]) -> array[float]:
    return value if isinstance(value, array) else array("d", value)


def _offsets(values: Sequence[Any]) -> pa.Buffer:
    lengths = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
    return pa.py_buffer(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))


def read_rows(path: Path, row_type: type[R]) -> list[R]:
    """The rows that `write_rows` wrote."""
    return [row_type(**row) for row in pq.read_table(path).to_pylist()]
