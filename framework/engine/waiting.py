"""The requests that wait, in order, of which any may leave at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import overload

from framework.engine.request import Request


class WaitingQueue(Sequence[Request]):
    """Adding at either end, removing from anywhere and looking at the ends are O(1), so that a policy which admits in
    an order of its own does not pay for the length of the queue; `queue[i]` takes min(i, n - i) steps.

    As of a deque, iterating over it while it changes is a RuntimeError.
    """

    def __init__(self) -> None:
        self._requests: OrderedDict[int, Request] = OrderedDict()  # dict has no front to put a preempted one

    def append(self, request: Request) -> None:
        assert request.id not in self._requests
        self._requests[request.id] = request

    def appendleft(self, request: Request) -> None:
        self.append(request)
        self._requests.move_to_end(request.id, last=False)

    def remove(self, request: Request) -> None:
        del self._requests[request.id]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    def __reversed__(self) -> Iterator[Request]:
        return reversed(self._requests.values())

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Request) and self._requests.get(request.id) is request

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        if index == 0:  # what most policies ask for
            for request in self._requests.values():
                return request
        if isinstance(index, slice):
            return list(self)[index]
        size = len(self._requests)
        place = index + size if index < 0 else index
        if not 0 <= place < size:
            raise IndexError(f"queue.waiting[{index}]: {size} requests wait")
        if 2 * place < size:
            return next(islice(self._requests.values(), place, None))
        return next(islice(reversed(self._requests.values()), size - 1 - place, None))
