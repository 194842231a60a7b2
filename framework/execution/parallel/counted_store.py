"""A store whose exchanges are counted from 0 for each engine.

PyTorch's symmetric memory numbers its exchanges per process, and puts the number into the store's keys. Rank 0 lives
longer than its workers: at its second engine it would wait for number 5 where a new worker offers number 0, for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from torch.distributed import Store


class CountedStore(Store):
    """Passes everything on to `store`. The number in keys `NAME/NUMBER/RANK` is counted from the first one seen."""

    def __init__(self, store: Any) -> None:
        super().__init__()
        self._store = store
        self._first: dict[str, int] = {}

    def set(self, key: str, value: Any) -> None:
        self._store.set(self._counted(key), value)

    def get(self, key: str) -> bytes:
        value: bytes = self._store.get(self._counted(key))
        return value

    def add(self, key: str, amount: int) -> int:
        total: int = self._store.add(self._counted(key), amount)
        return total

    def check(self, keys: Sequence[str]) -> bool:
        found: bool = self._store.check([self._counted(key) for key in keys])
        return found

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        counted = [self._counted(key) for key in keys]
        self._store.wait(counted, *([] if timeout is None else [timeout]))

    def _counted(self, key: str) -> str:
        name, *numbers = key.rsplit("/", 2)
        if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
            return key
        number, rank = map(int, numbers)
        return f"{name}/{number - self._first.setdefault(name, number)}/{rank}"
