"""A plugin that is shown its interface and nothing behind it.

The engine passes its own objects, since a copy per step would be slow. In a check they are wrapped: what the interface
does not name cannot be read, and nothing can be written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from framework.conformance.kit.finding import Violation
from framework.engine.block import Block
from framework.engine.plan import Plan, RequestQueue
from framework.engine.request import Request
from framework.interfaces.eviction import CachedBlock
from framework.interfaces.scheduler import Queue, RequestView, StepPlan

VIEW = "reads what its interface shows and nothing behind it, and writes nothing"

P = TypeVar("P")

_SHOWN: Mapping[type, type] = {Request: RequestView, RequestQueue: Queue, Plan: StepPlan, Block: CachedBlock}


def guard(plugin: P, interface: type) -> P:
    """`plugin` itself, whose methods of `interface` now get wrapped objects."""
    views = _Views(type(plugin).__name__)
    for name in dir(interface):
        method = getattr(plugin, name)
        if not name.startswith("_") and callable(method):
            setattr(plugin, name, views.around(method))
    return plugin


class _Views:
    """The wrappers of one plugin, one per object, so that they can be told apart and kept in sets."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self._known: dict[int, tuple[Any, _View]] = {}
        self._depth = 0
        self.first: Violation | None = None

    def refuse(self, message: str) -> Violation:
        """What to raise. The first is kept and raised again to the engine, since the plugin may catch it."""
        violation = Violation(VIEW, f"{self.plugin} {message}")
        self.first = self.first or violation
        return violation

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method` with its arguments wrapped and its result unwrapped."""

        @functools.wraps(method)
        def call(*given: Any, **more: Any) -> Any:
            shown = {name: self.show(value) for name, value in more.items()}
            self._depth += 1
            try:
                return unwrap(method(*map(self.show, given), **shown))
            finally:
                self._depth -= 1
                if self.first is not None and not self._depth:  # else the plugin called itself, and may catch it
                    found, self.first = self.first, None
                    raise found

        return call

    def show(self, value: Any) -> Any:
        """The wrapper of an object of the engine; any other value is shown as it is."""
        interface = _SHOWN.get(type(value))
        if interface is None:
            return value
        kept = self._known.get(id(value))
        if kept is None or kept[0] is not value:
            kept = self._known[id(value)] = value, _View(value, interface, self)
        return kept[1]


class _View:
    """One object of the engine as its interface shows it."""

    __slots__ = ("_of", "_interface", "_views")  # noqa: RUF023 (in the order of `__init__`)

    def __init__(self, of: Any, interface: type, views: _Views) -> None:
        for name, value in (("_of", of), ("_interface", interface), ("_views", views)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        interface, views = self._interface, self._views
        if name not in _names(interface):
            shown = ", ".join(sorted(_names(interface)))
            raise views.refuse(f"reads {name!r} of a {interface.__name__}, which has only {shown}")
        value = getattr(self._of, name)
        if callable(value):
            return lambda *given, **more: value(*map(unwrap, given), **{key: unwrap(one) for key, one in more.items()})
        return _LiveView(value, views) if isinstance(value, Sequence) and interface is Queue else views.show(value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise self._views.refuse(f"sets {name!r} of a {self._interface.__name__}")

    def __repr__(self) -> str:
        return repr(self._of)


class _LiveView(Sequence[Any]):
    """A sequence of the engine, as it is at any time."""

    def __init__(self, of: Any, views: _Views) -> None:
        self._of, self._views = of, views

    def __len__(self) -> int:
        return len(self._of)

    def __getitem__(self, index: Any) -> Any:
        found = self._of[index]
        return [self._views.show(one) for one in found] if isinstance(index, slice) else self._views.show(found)

    def __iter__(self) -> Iterator[Any]:
        return map(self._views.show, self._of)

    def __reversed__(self) -> Iterator[Any]:
        return map(self._views.show, reversed(self._of))

    def __contains__(self, value: object) -> bool:
        return unwrap(value) in self._of

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._views.refuse(f"uses {name!r} of a queue, which is a sequence that it may only read")


def unwrap(value: Any) -> Any:
    """The object of the engine behind a wrapper."""
    return value._of if type(value) is _View else value


@functools.cache
def _names(interface: type) -> frozenset[str]:
    return frozenset(name for one in interface.__mro__ for name in vars(one) if not name.startswith("_"))
