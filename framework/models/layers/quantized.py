"""Rows of a weight as a checkpoint stores them: blocks of small integers with scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """A block: so many numbers in so many bytes."""

    kind: int
    """The `GGMLQuantizationType`."""
    name: str
    numbers: int
    num_bytes: int
    halves: tuple[int, ...]
    """The positions of its 16-bit scales."""


FORMATS = {
    one.kind: one
    for one in (
        BlockFormat(2, "Q4_0", 32, 18, (0,)),
        BlockFormat(3, "Q4_1", 32, 20, (0, 2)),
        BlockFormat(8, "Q8_0", 32, 34, (0,)),
        BlockFormat(12, "Q4_K", 256, 144, (0, 2)),
        BlockFormat(14, "Q6_K", 256, 210, (208,)),
    )
}
"""The formats that CPU kernels read, by kind."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedRows:
    """Rows of a weight, or a slice of their columns, in blocks of one format."""

    kind: int
    blocks: np.ndarray
    """uint8 [rows, bytes of a row]; the bytes of a row lie side by side, and it may be mapped from a file."""

    @property
    def rows(self) -> int:
        return int(self.blocks.shape[0])

    @property
    def columns(self) -> int:
        one = FORMATS[self.kind]
        return int(self.blocks.shape[1]) // one.num_bytes * one.numbers

    def row_slice(self, start: int, num_rows: int) -> QuantizedRows:
        """`num_rows` rows from row `start` on; rows beyond the end are zeros."""
        blocks = self.blocks[start : start + num_rows]
        if missing := num_rows - len(blocks):
            blocks = np.pad(blocks, ((0, missing), (0, 0)))
        return QuantizedRows(self.kind, blocks)

    def column_slice(self, start: int, num_columns: int) -> QuantizedRows | None:
        """`num_columns` columns from column `start` on; None if the slice begins or ends inside a block."""
        one = FORMATS[self.kind]
        if start % one.numbers or num_columns % one.numbers:
            return None
        first, last = (column // one.numbers * one.num_bytes for column in (start, start + num_columns))
        return QuantizedRows(self.kind, self.blocks[:, first:last])

    def scales_are_finite(self) -> bool:
        """Whether no 16-bit scale is NaN or infinite. Then every weight is finite."""
        one = FORMATS[self.kind]
        return all(bool(((self.blocks[:, half + 1 :: one.num_bytes] & 0x7C) != 0x7C).all()) for half in one.halves)
