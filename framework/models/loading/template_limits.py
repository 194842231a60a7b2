"""A sandbox for templates from the internet that can neither loop nor allocate without end.

Jinja's own sandbox keeps a template from Python's internals and limits `range`, but two nested loops or a text that is
doubled forty times still hang the process. Here every loop round, call, filter and operator that can make something
large is counted, so the limits are the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 2_000_000
"""The largest number of loop rounds, calls, filters and operators in one rendering."""
MAX_LENGTH = 16 << 20
"""The largest length of one text or list."""
MAX_TOTAL = 2 << 30
"""The largest total length of the texts and lists that one rendering makes, whether kept or not."""
_MAX_BITS = 1 << 16
"""The largest number of bits of an integer."""
_KEEPS_ITEMS = frozenset(
    ["attr", "count", "d", "default", "first", "items", "last", "length", "max", "min", "random", "reverse"]
)
"""Filters whose result is no larger than what they are given, and that are called in loops over all messages."""


class TemplateLimitError(Exception):
    """A template went over a limit."""


class Budget:
    """What one rendering has used."""

    def __init__(self) -> None:
        self.steps = self.total = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise TemplateLimitError(f"it takes more than {MAX_STEPS:,} steps")

    def make(self, length: int) -> None:
        """Count what is about to be made."""
        self.step()
        if length > MAX_LENGTH:
            raise TemplateLimitError(f"it makes a text or list of {length:,} items; the limit is {MAX_LENGTH:,}")
        self.total += length
        if self.total > MAX_TOTAL:
            raise TemplateLimitError(f"it makes texts and lists of more than {MAX_TOTAL:,} items in all")


_budget: ContextVar[Budget] = ContextVar("template_budget")


def render(template: jinja2.Template, values: dict[str, Any]) -> str:
    """The text of `template`.

    Raises:
        TemplateLimitError: it goes over a limit.
    """
    budget, length = Budget(), 0
    token = _budget.set(budget)
    try:
        parts = []
        for part in template.generate(**values):
            length += len(part)
            budget.make(length if length > MAX_LENGTH else len(part))
            parts.append(part)
        return "".join(parts)
    finally:
        _budget.reset(token)


def _current() -> Budget:
    return _budget.get(None) or Budget()  # constants are folded while a template is compiled


def weigh(value: Any) -> int:
    """The length of all texts and containers in `value`, counted as often as they are held.

    A list that holds another one twice, and so on, is small in memory and endless as text; each container that a
    template makes is weighed, so none of them gets that far.
    """
    budget, weight, stack = _current(), 0, [value]
    while stack:
        item = stack.pop()
        budget.step()
        if isinstance(item, str):
            weight += len(item)
        elif isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
            weight += len(item)
        elif isinstance(item, list | tuple | set | frozenset):
            stack += item
            weight += len(item)
        if weight > MAX_LENGTH:
            raise TemplateLimitError(f"it makes a list of more than {MAX_LENGTH:,} items")
    return weight


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with the limits above. For templates that `render` runs."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters = {name: _counted(name, function) for name, function in self.filters.items()}
        self.filters |= {"_rounds": _rounds, "_weighed": _weighed}
        del self.globals["lipsum"]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Loops go over counted items; lists that are written out, and parts of `~`, are weighed."""
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filtered("_rounds", loop.iter)
        for joined in list(tree.find_all(nodes.Concat)):
            joined.nodes = [_filtered("_weighed", node) for node in joined.nodes]
        made: list[nodes.List | nodes.Tuple] = [*tree.find_all(nodes.List)]
        made += [
            node for node in tree.find_all(nodes.Tuple) if node.ctx == "load"
        ]  # else a loop or `set` assigns to it
        for node in made:
            node.items = [_filtered("_weighed", item) for item in node.items]
        for pair in list(tree.find_all(nodes.Pair)):
            pair.value = _filtered("_weighed", pair.value)
        return tree

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Joins the output of a macro or of a block that is assigned."""
        texts = list(parts)
        _current().make(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _current()
        if operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
            budget.make(len(left) + len(right))
        elif operator == "*":
            _check_product(budget, left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * max(0, right))
        elif operator == "%" and isinstance(left, str):
            _check_format(budget, left, right)
        budget.step()
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `format`
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            _check_method(_current(), method.__name__, text, args, kwargs)
        return _weighed(super().call(__context, __obj, *args, **kwargs))


def _filtered(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)  # type: ignore[no-untyped-call]


def _rounds(items: Iterable[Any]) -> Iterator[Any]:
    budget = _current()
    for item in items:
        budget.step()
        yield item


def _weighed(value: Any) -> Any:
    _current().make(weigh(value))
    return value


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is counted, and refused before it makes something of a size without limit."""

    @wraps(function)  # with Jinja's mark that it takes a context or environment first
    def counted(*args: Any, **kwargs: Any) -> Any:
        budget = _current()
        budget.step()
        more = [*args[1:], *kwargs.values()]
        if any(isinstance(value, int) and value > MAX_LENGTH for value in more):
            raise TemplateLimitError(f"it passes a number above {MAX_LENGTH:,} to the filter {name}")
        if name == "join":
            args = tuple(list(_rounds(value)) if isinstance(value, Iterator) else value for value in args)
        rest = [value for value in args if isinstance(value, str | list | tuple | range | dict)]
        size = len(rest[0]) if rest else 0
        texts = [len(value) for value in [*rest[1:], *kwargs.values()] if isinstance(value, str)]
        if name == "format":
            _check_format(budget, str(args[0]), more)
        elif name == "replace" and len(rest) > 2 and isinstance(rest[0], str):
            budget.make(size + rest[0].count(str(rest[1])) * len(rest[2]))
        elif name in ("join", "wordwrap", "indent"):
            lines = rest[0].count("\n") + 1 if rest and isinstance(rest[0], str) and name == "indent" else size
            widths = [value for value in more if isinstance(value, int)] if name == "indent" else []
            budget.make(size + lines * max([*texts, *widths, 0]))
        result = function(*args, **kwargs)
        return result if name in _KEEPS_ITEMS else _weighed(result)

    return counted


def _check_product(budget: Budget, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    for sized, count in ((left, right), (right, left)):
        if isinstance(sized, str | list | tuple) and isinstance(count, int):
            budget.make(weigh(sized) * max(0, count))


def _check_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise TemplateLimitError(f"it computes an integer of more than {_MAX_BITS:,} bits")


def _check_format(budget: Budget, text: str, values: Any) -> None:
    """Widths are written in the text, or given as numbers; a value may be put in many times."""
    items = (
        list(values.values()) if isinstance(values, dict) else values if isinstance(values, list | tuple) else [values]
    )
    numbers = [value for value in items if isinstance(value, int)] if re.search(r"\*|\{[^}]*\{", text) else []
    widths = sum(int(digits) for digits in re.findall(r"\d{1,18}", text)) + sum(map(abs, numbers))
    budget.make(widths + (text.count("%") + text.count("{")) * (1 + max((weigh(item) for item in items), default=0)))


def _check_method(budget: Budget, name: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Methods of texts that make more than they are given."""
    numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, int)]
    if name in ("ljust", "rjust", "center", "zfill") and numbers:
        budget.make(max(len(text), *numbers))
    elif name == "expandtabs":
        budget.make(len(text) * max(8, *numbers, 0))
    elif name == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
        budget.make(len(text) + text.count(args[0]) * len(args[1]))
    elif name == "translate":
        budget.make(len(text) * (1 + weigh(args)))
    elif name == "join" and args and isinstance(args[0], list | tuple):
        budget.make(len(text) * len(args[0]))
    elif name in ("format", "format_map"):
        _check_format(budget, text, [*args, *kwargs.values()])
