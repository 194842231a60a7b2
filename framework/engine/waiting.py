"""The waiting requests, in order. Any of them may leave at any time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import overload

from framework.engine.request import Request


class WaitingQueue(Sequence[Request]):
    """A queue in which adding at either end, removing from anywhere and looking at the ends are O(1). A policy with an
    order of its own therefore does not pay for the length of the queue. Looking at any other place copies the queue,
    once until it changes.

    As with a deque, iterating over it while it changes is a RuntimeError.
    """

    def __init__(self) -> None:
        self._requests: OrderedDict[int, Request] = OrderedDict()  # dict has no front to put a preempted one
        self._copy: list[Request] | None = None

    def append(self, request: Request) -> None:
        assert request.id not in self._requests
        self._requests[request.id] = request
        self._copy = None

    def appendleft(self, request: Request) -> None:
        self.append(request)
        self._requests.move_to_end(request.id, last=False)

    def remove(self, request: Request) -> None:
        del self._requests[request.id]
        self._copy = None

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
        if index == 0 or index == -1:
            for request in self if index == 0 else reversed(self):
                return request
        if self._copy is None:
            self._copy = list(self)
        return self._copy[index]
