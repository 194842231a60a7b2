"""Sealed plans as bytes. A decode step that goes on with the rows of the step before is 17 bytes."""

from __future__ import annotations

import pickle
import struct
from array import array

from framework.interfaces.executor import StepBatch

_HEADER = struct.Struct("<BqII")
"""What follows (flags), step, rows, decode rows."""
_ROWS, _NEWS, _EAGER = 1, 2, 4


class PlanEncoder:
    """Remembers the last plan, so that only what changed is sent. One for all readers, which must see every plan."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._next_starts: list[int] = []

    def encode(self, batch: StepBatch) -> bytes:
        """Not empty; `PlanDecoder.decode` makes an equal batch of it."""
        goes_on = (
            batch.slots == self._slots
            and batch.starts == self._next_starts
            and batch.num_tokens == batch.num_decode_rows == len(batch.slots)
            and all(batch.samples)
        )
        flags = (0 if goes_on else _ROWS) | (_NEWS if batch.admissions or batch.new_blocks else 0)
        flags |= _EAGER if batch.eager else 0
        parts = [_HEADER.pack(flags, batch.step, len(batch.slots), batch.num_decode_rows)]
        if not goes_on:
            parts.append(array("i", [*batch.row_tokens, *batch.slots, *batch.starts, *batch.samples]).tobytes())
        if flags & _NEWS:
            parts.append(pickle.dumps((batch.admissions, batch.new_blocks), pickle.HIGHEST_PROTOCOL))
        self._slots = batch.slots
        self._next_starts = [start + count for start, count in zip(batch.starts, batch.row_tokens, strict=True)]
        return b"".join(parts)


class PlanDecoder:
    """The other end of a `PlanEncoder`."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._next_starts: list[int] = []

    def decode(self, data: bytes) -> StepBatch:
        """The batch that was encoded. Bytes must come from this program's own rank 0: they hold a pickle."""
        flags, step, num_rows, num_decode_rows = _HEADER.unpack_from(data)
        end = _HEADER.size
        if flags & _ROWS:
            numbers = array("i")
            end += 4 * num_rows * numbers.itemsize
            numbers.frombytes(data[_HEADER.size : end])
            row_tokens, slots, starts, samples = (
                numbers[part * num_rows : (part + 1) * num_rows].tolist() for part in range(4)
            )
        else:
            row_tokens, slots, starts = [1] * num_rows, self._slots.copy(), self._next_starts
            samples = row_tokens
        admissions, new_blocks = pickle.loads(data[end:]) if flags & _NEWS else ([], [])
        self._slots = slots
        self._next_starts = [start + count for start, count in zip(starts, row_tokens, strict=True)]
        return StepBatch(
            step=step,
            num_tokens=sum(row_tokens),
            num_decode_rows=num_decode_rows,
            row_tokens=row_tokens,
            slots=slots,
            starts=starts,
            samples=list(map(bool, samples)),
            admissions=admissions,
            new_blocks=new_blocks,
            eager=bool(flags & _EAGER),
        )
