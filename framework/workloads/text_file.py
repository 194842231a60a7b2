"""Text files as they are published, compressed or not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from framework.toolkit.read_file import refuse_devices

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""The compression that the end of a file's name stands for."""


@contextmanager
def open_text(path: Path | str) -> Iterator[TextIO]:
    """Lines of `path`, UTF-8 with or without a mark, unpacked as they are read.

    Raises:
        ValueError: it cannot be read, or is not what the end of its name says.
    """
    path = Path(path).expanduser()
    try:
        refuse_devices(path)
        if (compression := COMPRESSIONS.get(path.suffix)) is None:
            with path.open(encoding="utf-8-sig") as file:
                yield file
            return
        import pyarrow as pa  # which knows zstd; Python does from 3.14 on

        with path.open("rb") as packed, pa.CompressedInputStream(packed, compression) as stream:
            yield io.TextIOWrapper(stream, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"workload.path={path} is not UTF-8 ({error.reason}); convert it") from error
    except OSError as error:
        reason = error.strerror or f"{' '.join(str(error).split())}; its name says that it is {path.suffix}"
        raise ValueError(f"workload.path={path} cannot be read: {reason}; pass a file") from error
