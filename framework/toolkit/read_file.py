"""Reads text, JSON and YAML files. Every error names the file, and both size and nesting have a limit."""

from __future__ import annotations

import json
import math
import re
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 64 << 20
"""The largest JSON, YAML or text file that is read whole."""
MAX_DEPTH = 64
"""The deepest nesting of lists and objects. Code that walks a value recursively can rely on it."""
_MAX_NUMBER = 1 << 1000
"""Larger integers do not fit a float, which is what most numbers become."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """The text of `path`, which must be UTF-8.

    Raises:
        FileNotFoundError: there is no such file. Callers say so in their own words.
        ValueError: `path` is not a file, is too large, is not UTF-8 or can't be read. The message names it.
    """
    try:
        refuse_devices(path)
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}; pass a file") from error
    except ValueError as error:
        if "\0" in str(path):
            raise ValueError(f"{str(path)!r} can't be the name of a file: it holds a NUL character") from error
        raise
    if len(data) > max_bytes:
        raise ValueError(f"{path} holds more than {max_bytes} bytes, the limit for such a file; is it the right one?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; convert it, or pass another file") from error


def refuse_devices(path: Path) -> None:
    """Refuse what is neither a file nor a pipe: `/dev/zero` never ends.

    Raises:
        OSError: there is no such file.
        ValueError: naming it.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        kind = "folder" if stat.S_ISDIR(mode) else "device or socket"
        raise ValueError(f"{path} is a {kind}, not a file; pass a file")


def read_json(path: Path) -> Any:
    """The value in `path`. See `read_text` and `parse_json` for the errors."""
    return parse_json(read_text(path), str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """As `read_json`, for files that must hold an object.

    Raises:
        ValueError: naming the file, if it is missing too.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value


def parse_json(text: str, where: str) -> Any:
    """The JSON value that `text` spells.

    Raises:
        ValueError: beginning with `where`, for what is not JSON, nested more than `MAX_DEPTH` deep, a number without
            end (NaN, an infinity, thousands of digits) or half of a surrogate pair, which no UTF-8 file can take.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"{where} is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error
    _check(value, where, check_strings=_SURROGATE.search(text) is not None)
    return value


def read_yaml(path: Path) -> Any:
    """The value in `path`, as `yaml.safe_load` reads it. The errors are those of `read_json`."""
    import yaml

    text = read_text(path, max_bytes=4 << 20)
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(f"{path} is nested more than {MAX_DEPTH} levels deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter of dates and numbers
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    _check(value, str(path), check_strings=True)
    return value


def _check(value: Any, where: str, *, check_strings: bool) -> None:
    """Level by level, so that this walk itself can't nest too deeply; YAML may hold one container many times."""
    level, seen = [value], set[int]()
    for _ in range(MAX_DEPTH + 1):
        below = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f"{where} holds the number {item}; numbers must be finite")
            elif isinstance(item, int) and not -_MAX_NUMBER < item < _MAX_NUMBER:
                raise ValueError(f"{where} holds a number of {len(str(abs(item)))} digits, too large for any use")
            elif check_strings and isinstance(item, str) and not item.isascii():
                _check_string(item, where)
        level = []
        for item in below:
            if isinstance(item, dict | list):
                if id(item) in seen:
                    continue
                seen.add(id(item))
            elif isinstance(item, str) and not check_strings:
                continue
            level.append(item)
        if not level:
            return
    raise ValueError(f"{where} is nested more than {MAX_DEPTH} levels deep")


def _check_string(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} holds half of a surrogate pair ({text[error.start]!r}), which is not a character; correct it"
        ) from error
