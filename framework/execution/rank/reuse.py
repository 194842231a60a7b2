"""Weights that outlive their engine: cells in one process need not load the same model again."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class _Kept:
    """The last model that was loaded inside `reusing_weights`."""

    def __init__(self) -> None:
        self.key = ""
        self.value: Any = None

    def free(self) -> None:
        self.key, self.value = "", None
        gc.collect()  # engines hold their models in cycles
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


_active: list[_Kept] = []


@contextmanager
def reusing_weights() -> Iterator[None]:
    """Inside this context, `load_once` keeps the last thing that it loaded and frees it before it loads another."""
    kept = _Kept()
    _active.append(kept)
    try:
        yield
    finally:
        _active.remove(kept)
        kept.free()


def load_once(determined_by: Mapping[str, Any], load: Callable[[], T]) -> tuple[T, bool]:
    """What `load` returns, and whether it is from an earlier call with an equal `determined_by`.

    Args:
        determined_by: everything that the loaded weights depend on, whatever was done to them afterwards included.
    """
    if not _active:
        return load(), False
    kept, key = _active[-1], json.dumps(determined_by, sort_keys=True, default=str)
    if kept.key == key:
        return kept.value, True
    kept.free()
    kept.value = load()
    kept.key = key
    return kept.value, False
