"""The metadata and the table of tensors at the beginning of a GGUF file (format versions 2 and 3).

Read here and not by the `gguf` package, which builds an array for every element (seconds for a vocabulary) and believes
the lengths that a file states. Here no length is believed that the rest of the file has no room for.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The `struct` format of each value type."""
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the file, which has not been read yet."""

    name: str
    shape: tuple[int, ...]
    """The shape with rows first, as in PyTorch."""
    kind: int
    """A `GGMLQuantizationType`."""
    start: int
    """The position of its first byte in the file."""


class BrokenGGUFError(ValueError):
    """The bytes are not those of a whole GGUF file. The message says why, without the file's name."""


def read_header(path: Path) -> tuple[dict[str, Any], list[TensorEntry]]:
    """Metadata by key, and the tensors in their order.

    Raises:
        BrokenGGUFError: for bytes that are no GGUF file, or a part of one.
        OSError: the file can't be opened.
    """
    with path.open("rb") as file:
        if (size := file.seek(0, 2)) < 24:
            raise BrokenGGUFError(f"it has {size} bytes")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).read()


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.size, self.place = data, len(data), 0
        self.order = "<"

    def read(self) -> tuple[dict[str, Any], list[TensorEntry]]:
        if self.data[:4] != b"GGUF":
            raise BrokenGGUFError("it does not begin with 'GGUF'")
        self.place = 4
        (version,) = self.take("I")
        if version & 0xFFFF == 0:  # written on a machine of the other byte order
            raise BrokenGGUFError("it is big-endian, which is not supported")
        if version not in (2, 3):
            raise BrokenGGUFError(f"it has format version {version}; versions 2 and 3 are supported")
        num_tensors, num_keys = self.take("QQ")
        metadata: dict[str, Any] = {}
        for _ in self.counted(num_keys, 13, "keys"):
            key = self.text("a key")
            (kind,) = self.take("I")
            if key in metadata:
                raise BrokenGGUFError(f"key {key} is there twice")
            metadata[key] = self.value(kind, key)
        entries = [self.entry() for _ in self.counted(num_tensors, 32, "tensors")]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise BrokenGGUFError(f"general.alignment={alignment!r} is not a power of two")
        base = -(-self.place // alignment) * alignment
        return metadata, [TensorEntry(name, shape, kind, base + start) for name, shape, kind, start in entries]

    def take(self, form: str) -> tuple[Any, ...]:
        form = self.order + form
        if self.place + struct.calcsize(form) > self.size:
            raise BrokenGGUFError(f"it ends within its header, at byte {self.size}")
        values = struct.unpack_from(form, self.data, self.place)
        self.place += struct.calcsize(form)
        return values

    def counted(self, count: int, least_bytes: int, what: str) -> Iterator[int]:
        """`range(count)`, if the rest of the file has room for as many things of at least this many bytes."""
        if count * least_bytes > self.size - self.place:
            raise BrokenGGUFError(f"it states {count} {what}, but ends {self.size - self.place} bytes further on")
        return iter(range(count))

    def text(self, what: str) -> str:
        (length,) = self.take("Q")
        self.counted(length, 1, f"bytes of {what}")
        start = self.place
        self.place += length
        try:
            return self.data[start : self.place].decode("utf-8")
        except UnicodeDecodeError as error:
            raise BrokenGGUFError(f"{what} is not UTF-8 at byte {start + error.start}") from error

    def value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])[0]
        if kind == _STRING:
            return self.text(f"the text of {key}")
        if kind != _ARRAY:
            raise BrokenGGUFError(f"{key} has the value type {kind}, which does not exist")
        item_kind, count = self.take("IQ")
        if item_kind in _SCALARS:
            form = np.dtype(self.order + _SCALARS[item_kind])
            self.counted(count, form.itemsize, f"numbers of {key}")
            values = np.frombuffer(self.data, form, count, self.place).tolist()
            self.place += count * form.itemsize
            return values
        if item_kind != _STRING:
            raise BrokenGGUFError(f"{key} is an array of the value type {item_kind}, which is not supported")
        return [self.text(f"an entry of {key}") for _ in self.counted(count, 8, f"texts of {key}")]

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text("the name of a tensor")
        (dimensions,) = self.take("I")
        if dimensions > _MAX_DIMENSIONS:
            raise BrokenGGUFError(f"tensor {name} has {dimensions} dimensions; at most {_MAX_DIMENSIONS} exist")
        shape = self.take("Q" * dimensions)[::-1]
        kind, start = self.take("IQ")
        return name, shape, kind, start
