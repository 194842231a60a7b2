"""Random steps for cost models: a batch, what a graph replays of it, and batches with more to do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from framework.interfaces.cost_model import StepShape
from framework.interfaces.graph import GraphScope

MAX_ROWS, MAX_CHUNK_TOKENS, MAX_CONTEXT = 256, 8192, 100_000

Kind = tuple[GraphScope | None, bool]
KINDS: tuple[Kind, ...] = (
    (None, False),
    (GraphScope.FORWARD, False),
    (GraphScope.FORWARD, True),
    (GraphScope.STEP, False),
    (GraphScope.STEP, True),
    (GraphScope.PIECES, False),
)
"""What a graph replays of a step, None for nothing, and whether it is one that holds prompt chunks too."""


class Batch(NamedTuple):
    """A step, request by request."""

    contexts: tuple[int, ...]
    """The number of positions before the token of each decode row."""
    chunks: tuple[tuple[int, int], ...]
    """The positions before each prefill chunk, and its tokens. All chunks but the last end their prompt."""
    kind: Kind
    pad_to: int = 1
    """A graph has a multiple of this many tokens."""
    captures: bool = False
    new_rows: bool = False

    def shape(self) -> StepShape:
        """What a cost model is told of the batch."""
        num_decode, num_rows = len(self.contexts), len(self.contexts) + len(self.chunks)
        num_tokens = num_decode + sum(num for _, num in self.chunks)
        scope, mixed = self.kind
        padded_tokens, padded_rows = num_tokens, num_rows
        if scope is not None:
            padded_tokens = -(-num_tokens // self.pad_to) * self.pad_to
        if scope in (GraphScope.FORWARD, GraphScope.STEP):
            padded_rows = -(-num_rows // self.pad_to) * self.pad_to
            padded_tokens = max(padded_tokens, padded_rows + mixed)
        return StepShape(
            num_tokens=num_tokens,
            num_rows=num_rows,
            num_decode_rows=num_decode,
            num_sampled=max(num_rows - bool(self.chunks), 0),
            decode_kv_tokens=sum(self.contexts) + num_decode,
            prefill_kv_tokens=sum(start + num for start, num in self.chunks),
            prefill_pairs=sum(num * start + num * (num + 1) // 2 for start, num in self.chunks),
            scope=scope,
            padded_tokens=padded_tokens,
            padded_rows=padded_rows,
            captures=self.captures,
            new_rows=self.new_rows,
            longest_chunk_kv=max((start + num for start, num in self.chunks), default=0),
        )

    def describe(self) -> str:
        rows = f"decode rows after {_some(self.contexts)} positions, chunks of (start, tokens) {_some(self.chunks)}"
        return f"{kind_name(self.kind)}: {rows}\n{self.shape()}"


@st.composite
def batches(draw: st.DrawFn, kind: Kind) -> Batch:
    """Decode steps, chunks, and both, from one short request to full batches. They follow a seed, as traces do."""
    rng = random.Random(draw(st.integers(0, 1 << 30)))
    scope, mixed = kind
    decodes_only = scope in (GraphScope.FORWARD, GraphScope.STEP) and not mixed
    num_decode = _up_to(rng, MAX_ROWS) if decodes_only or rng.random() < 0.8 else 0
    num_chunks = 0 if decodes_only else rng.randint(0 if num_decode else 1, 3)
    return Batch(
        contexts=tuple(_up_to(rng, MAX_CONTEXT) for _ in range(num_decode)),
        chunks=tuple(
            (_up_to(rng, MAX_CONTEXT) if rng.random() < 0.5 else 0, _up_to(rng, MAX_CHUNK_TOKENS // num_chunks))
            for _ in range(num_chunks)
        ),
        kind=kind,
        pad_to=rng.choice([1, 8]),
        captures=scope is not None and rng.random() < 0.1,
        new_rows=rng.random() < 0.3,
    )


def simpler_batches(batch: Batch) -> Iterator[Batch]:
    """Batches that are a little simpler, the boldest cuts first."""
    contexts, chunks = batch.contexts, batch.chunks
    for fewer in ((), contexts[: len(contexts) // 2], contexts[1:]):
        if fewer != contexts and (fewer or chunks):
            yield batch._replace(contexts=fewer)
    for index in range(len(chunks)):
        if contexts or len(chunks) > 1:
            yield batch._replace(chunks=chunks[:index] + chunks[index + 1 :])
    plain = (
        {"contexts": tuple(1 for _ in contexts)},
        {"chunks": tuple((0, num) for _, num in chunks)},
        {"chunks": tuple((start, 1) for start, _ in chunks)},
        {"pad_to": 1},
        {"captures": False},
        {"new_rows": False},
    )
    for change in plain:
        if (simpler := batch._replace(**change)) != batch:  # type: ignore[arg-type]
            yield simpler


def with_more(batch: Batch) -> Iterator[tuple[str, Batch]]:
    """What is added to `batch`, and the batch that has it; a graph stays one of its kind."""
    contexts, chunks = batch.contexts, batch.chunks
    if contexts:
        yield "twice the positions before each decode row", batch._replace(contexts=tuple(2 * c for c in contexts))
        yield "each decode row twice", batch._replace(contexts=contexts * 2)
    if chunks:
        yield "chunks of twice the tokens", batch._replace(chunks=tuple((start, 2 * num) for start, num in chunks))
        yield "each chunk twice", batch._replace(chunks=chunks * 2)


def kind_name(kind: Kind) -> str:
    scope, mixed = kind
    return "eager" if scope is None else f"{scope.value} graph{' of any rows' if mixed else ''}"


def _up_to(rng: random.Random, most: int) -> int:
    """From 1 on, each power of two as likely as the next."""
    return min(most, int(2 ** (rng.random() * most.bit_length())))


def _some(values: tuple[object, ...]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return f"[{shown}{', ...' if len(values) > 8 else ''}] ({len(values)})"
