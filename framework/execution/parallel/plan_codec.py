"""Sealed plans as bytes. A decode step with the same rows as the step before takes 17 bytes."""

from __future__ import annotations

import dataclasses
import json
import struct
from array import array
from typing import Any

from framework.interfaces.executor import Admission, StepBatch
from framework.interfaces.sampling_params import SamplingParams

_HEADER = struct.Struct("<BqII")
"""The header: flags for what follows, step, rows, decode rows."""
_LENGTH = struct.Struct("<I")
_ROWS, _BLOCKS, _ADMISSIONS, _EAGER = 1, 2, 4, 8
_DEFAULT = SamplingParams()
_FIELDS = tuple(one.name for one in dataclasses.fields(SamplingParams))


class PlanEncoder:
    """Remembers the last plan, so that only changes are sent. It serves all readers, which must see every plan."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._next_starts: list[int] = []

    def encode(self, batch: StepBatch) -> bytes:
        """The plan as bytes, never empty. `PlanDecoder.decode` makes an equal batch of them."""
        goes_on = (
            batch.slots == self._slots
            and batch.starts == self._next_starts
            and batch.num_tokens == batch.num_decode_rows == len(batch.slots)
            and all(batch.samples)
        )
        flags = (0 if goes_on else _ROWS) | (_EAGER if batch.eager else 0)
        flags |= (_BLOCKS if batch.new_blocks else 0) | (_ADMISSIONS if batch.admissions else 0)
        parts = [_HEADER.pack(flags, batch.step, len(batch.slots), batch.num_decode_rows)]
        if not goes_on:
            parts.append(array("i", [*batch.row_tokens, *batch.slots, *batch.starts, *batch.samples]).tobytes())
        if batch.new_blocks:
            parts.extend(_encode_blocks(batch.new_blocks))
        if batch.admissions:
            parts.extend(_encode_admissions(batch.admissions))
        self._slots = batch.slots
        self._next_starts = [start + count for start, count in zip(batch.starts, batch.row_tokens, strict=True)]
        return b"".join(parts)


class PlanDecoder:
    """The other end of a `PlanEncoder`."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._next_starts: list[int] = []

    def decode(self, data: bytes) -> StepBatch:
        """The batch that was encoded. Decoding cannot run code."""
        flags, step, num_rows, num_decode_rows = _HEADER.unpack_from(data)
        end = _HEADER.size
        if flags & _ROWS:
            numbers, end = _numbers(data, end, 4 * num_rows)
            row_tokens, slots, starts, samples = (
                numbers[part * num_rows : (part + 1) * num_rows].tolist() for part in range(4)
            )
        else:
            row_tokens, slots, starts = [1] * num_rows, self._slots.copy(), self._next_starts
            samples = row_tokens
        new_blocks, end = _decode_blocks(data, end) if flags & _BLOCKS else ([], end)
        admissions = _decode_admissions(data, end) if flags & _ADMISSIONS else []
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


def _encode_blocks(new_blocks: list[tuple[int, int, list[int]]]) -> list[bytes]:
    """Entries, slots, firsts, counts, ids. All are 32-bit numbers except the first."""
    slots, firsts, ids = zip(*new_blocks, strict=True)
    flat = [block_id for some in ids for block_id in some]
    return [_LENGTH.pack(len(slots)), array("i", [*slots, *firsts, *map(len, ids), *flat]).tobytes()]


def _decode_blocks(data: bytes, end: int) -> tuple[list[tuple[int, int, list[int]]], int]:
    (num,) = _LENGTH.unpack_from(data, end)
    numbers, end = _numbers(data, end + _LENGTH.size, 3 * num)
    slots, firsts, counts = (numbers[part * num : (part + 1) * num].tolist() for part in range(3))
    flat, end = _numbers(data, end, sum(counts))
    found, start = [], 0
    for slot, first, count in zip(slots, firsts, counts, strict=True):
        found.append((slot, first, flat[start : start + count].tolist()))
        start += count
    return found, end


def _encode_admissions(admissions: list[Admission]) -> list[bytes]:
    """The length of a JSON text, the text, and the tokens of all admissions. Default parameters are left out."""
    about: list[list[Any]] = []
    for one in admissions:
        assert one.keys is None, "ranks run tokens, not keys that stand for them"
        params = {name: value for name in _FIELDS if (value := getattr(one.params, name)) != getattr(_DEFAULT, name)}
        if "logit_bias" in params:
            params["logit_bias"] = list(params["logit_bias"].items())  # keys of JSON are text
        about.append([one.slot, one.request_id, one.num_prompt, one.seed, len(one.token_ids), params])
    text = json.dumps(about).encode()
    return [_LENGTH.pack(len(text)), text, *(one.token_ids.tobytes() for one in admissions)]


def _decode_admissions(data: bytes, end: int) -> list[Admission]:
    (num_bytes,) = _LENGTH.unpack_from(data, end)
    start, end = end + _LENGTH.size, end + _LENGTH.size + num_bytes
    found = []
    for slot, request_id, num_prompt, seed, num_tokens, given in json.loads(data[start:end]):
        if "logit_bias" in given:
            given["logit_bias"] = dict(given["logit_bias"])
        token_ids, end = _numbers(data, end, num_tokens)
        found.append(Admission(slot, request_id, token_ids, num_prompt, SamplingParams(**given), seed))
    return found


def _numbers(data: bytes, start: int, count: int) -> tuple[array[int], int]:
    """`count` 32-bit numbers from `start` on, and the position after them."""
    numbers = array("i")
    end = start + count * numbers.itemsize
    numbers.frombytes(data[start:end])
    return numbers, end
