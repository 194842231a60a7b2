"""The checks of graph strategies: which shapes they capture, and which one replays a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from framework.conformance.kit.finding import Budget, Check, NotApplicable, Violation
from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits, GraphScope, GraphStrategy

KEYS = "keys are distinct, within the limits, the largest first"
SELECTS = "every shape up to the limits runs eager or in a captured shape that holds it"

LIMITS = tuple(
    GraphLimits(max_num_seqs=rows, max_num_batched_tokens=tokens, mixed_supported=mixed)
    for rows, tokens in ((1, 1), (8, 32), (37, 300), (256, 256), (300, 8192))
    for mixed in (False, True)
)


def checks(choice: Mapping[Any, Any], build: Callable[[], GraphStrategy], budget: Budget) -> list[Check]:
    """The checks of the strategy that `build` makes anew for each set of limits."""
    return [
        Check(KEYS, lambda: _keys(build)),
        Check(SELECTS, lambda: _selects(build)),
        Check("the same limits give the same keys", lambda: _same_keys(build)),
        Check("a replayed graph equals eager", _replay),
    ]


def _keys(build: Callable[[], GraphStrategy]) -> str:
    for limits in LIMITS:
        strategy = build()
        keys = strategy.keys(limits)
        pieces = strategy.scope is GraphScope.PIECES
        for key in keys:
            if pieces and key.num_rows != 0:
                raise Violation(KEYS, f"{key}: the keys of scope PIECES have tokens and no rows\n{limits}")
            if not pieces and not 1 <= key.num_rows <= key.num_tokens:
                raise Violation(KEYS, f"{key}: a batch has at least one row, and a row at least one token\n{limits}")
            if key.num_rows > limits.max_num_seqs or key.num_tokens > limits.max_num_batched_tokens:
                raise Violation(KEYS, f"{key} exceeds {limits}")
            if not pieces and key.num_rows != key.num_tokens and not limits.mixed_supported:
                raise Violation(KEYS, f"{key} is for mixed batches, which the attention backend cannot capture")
        if len(set(keys)) != len(keys):
            raise Violation(KEYS, f"a key comes twice among {keys}\n{limits}")
        if keys != sorted(keys, reverse=True):
            at = next(i for i in range(len(keys) - 1) if keys[i] < keys[i + 1])
            raise Violation(KEYS, f"{keys[at + 1]} comes after the smaller {keys[at]}\n{limits}")
    return f"{len(LIMITS)} sets of limits; at most {max(len(build().keys(one)) for one in LIMITS)} keys"


def _selects(build: Callable[[], GraphStrategy]) -> str:
    num_shapes = num_decode = num_graphed = num_tokens = num_padding = 0
    for limits in LIMITS:
        strategy = build()
        keys = set(strategy.keys(limits))
        for shape in _shapes(limits):
            num_shapes += 1
            num_decode += shape.decode_only
            key = strategy.select(shape)
            if key is None:
                continue
            _check_choice(strategy, shape, key, keys, limits)
            if shape.decode_only:
                num_graphed += 1
                num_tokens += shape.num_tokens
                num_padding += key.num_tokens - shape.num_tokens
    padding = f", {num_padding / (num_padding + num_tokens):.1%} of their tokens padding" if num_tokens else ""
    return f"{num_shapes:,} shapes; {num_graphed:,} of {num_decode:,} decode shapes replay a graph{padding}"


def _check_choice(
    strategy: GraphStrategy, shape: BatchShape, key: GraphKey, keys: set[GraphKey], limits: GraphLimits
) -> None:
    if key not in keys and strategy.max_graphs is None:
        what = "which is not among its keys; captures at first use need max_graphs, to bound their memory"
        raise Violation(SELECTS, f"{shape} got {key}, {what}\n{limits}")
    pieces = strategy.scope is GraphScope.PIECES
    if key.num_tokens < shape.num_tokens or (key.num_rows < shape.num_rows and not pieces):
        raise Violation(SELECTS, f"{shape} got the smaller {key}\n{limits}")
    if not pieces and key.num_tokens == key.num_rows and not shape.decode_only:
        raise Violation(SELECTS, f"{shape} has a prefill chunk, but {key} holds decode rows only\n{limits}")


def _shapes(limits: GraphLimits) -> Iterator[BatchShape]:
    """Every decode shape, and mixed ones: all of them for small limits, else those around powers of two."""
    max_rows = min(limits.max_num_seqs, limits.max_num_batched_tokens)
    for num_rows in range(1, max_rows + 1):
        yield BatchShape(num_rows=num_rows, num_tokens=num_rows)
    edges = {(1 << power) + more for power in range(14) for more in (-1, 0, 1)}
    every = limits.max_num_batched_tokens <= 300
    for num_rows in range(1, max_rows + 1):
        if not every and num_rows not in edges:
            continue
        for num_tokens in range(num_rows + 1, limits.max_num_batched_tokens + 1):
            if every or num_tokens in edges or num_tokens == limits.max_num_batched_tokens:
                yield BatchShape(num_rows=num_rows, num_tokens=num_tokens)


def _same_keys(build: Callable[[], GraphStrategy]) -> str:
    rule = "the same limits give the same keys"
    for limits in LIMITS:
        if (one := build().keys(limits)) != (other := build().keys(limits)):
            raise Violation(rule, f"{one}, then {other}\n{limits}")
    return f"{len(LIMITS)} sets of limits, each twice"


def _replay() -> str:
    raise NotApplicable("capturing is the framework's: its own tests compare it with eager on a CUDA device")
