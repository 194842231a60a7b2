"""A resolved configuration as JSON and back: nothing that is decoded can run code, unlike a pickle."""

from __future__ import annotations

import enum
import sys
from typing import Any

_ENUM, _PAIRS = "__enum__", "__pairs__"


def encode_config(value: Any) -> Any:
    """`value` in what JSON holds; keys other than text and members of an Enum are marked.

    Raises:
        TypeError: for what no configuration holds.
    """
    if isinstance(value, enum.Enum):
        return {_ENUM: [type(value).__module__, type(value).__qualname__, value.name]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [encode_config(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: encode_config(item) for key, item in value.items()}
        return {_PAIRS: [[encode_config(key), encode_config(item)] for key, item in value.items()]}
    raise TypeError(f"a configuration holds no {type(value).__name__}: {value!r}")


def decode_config(value: Any) -> Any:
    """What was encoded. An Enum has to be of a module that is imported already.

    Raises:
        ValueError: for the member of an Enum that this process does not know.
    """
    if isinstance(value, list):
        return [decode_config(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _PAIRS in value:
        return {decode_config(key): decode_config(item) for key, item in value[_PAIRS]}
    if _ENUM in value:
        return _member(*value[_ENUM])
    return {key: decode_config(item) for key, item in value.items()}


def _member(module: str, qualname: str, name: str) -> enum.Enum:
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, enum.Enum)) or name not in found.__members__:
        raise ValueError(f"rank 0 sent {qualname}.{name} of module {module}, which this rank does not know")
    return found[name]
