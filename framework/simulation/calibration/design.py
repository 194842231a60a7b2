"""Which steps to measure: a small set that shows how time depends on rows, context and chunks."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

_CONTEXTS = (32, 64, 128, 192, 256, 384, 512, 1024, 2048, 4096)
"""Mean contexts, dense where rows are few tiles of keys long and time does not grow evenly."""
_EAGER_ROWS = (1, 8, 32, 64, 128, 256)
_MOST_DRAWS = 1000
"""The number of tries for a step that fits; 1 to 3 are enough with the limits of an engine that serves."""
_SPREAD = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Contexts of the rows of one step, relative to their mean, since requests in a batch never have equal lengths."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request in a step: `num` tokens after the `start` tokens that are in the cache."""

    start: int
    num: int = 1
    samples: bool = True


Point = list[Row]
"""The rows of one step, decode rows first."""


def decode_points(row_counts: Sequence[int], max_model_len: int, capacity_tokens: int) -> list[Point]:
    """Decode steps of each number of rows at each mean context that fits."""
    points = []
    for num_rows in row_counts:
        for context in _CONTEXTS:
            starts = [min(max_model_len - 40, int(context * _SPREAD[i % len(_SPREAD)])) for i in range(num_rows)]
            if num_rows == 1:
                starts = [min(max_model_len - 40, context)]
            if sum(starts) + 64 * num_rows <= capacity_tokens:
                points.append([Row(start) for start in starts])
    return points


def eager_row_counts(max_num_seqs: int) -> list[int]:
    return [rows for rows in _EAGER_ROWS if rows < max_num_seqs] + [max_num_seqs]


def mixed_points(
    num_points: int,
    graph_sizes: Sequence[int] = (),
    *,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    capacity_tokens: int,
) -> list[Point]:
    """Prompts and chunks, alone and beside decode rows. Sizes are drawn log-uniformly and are always the same.

    Args:
        graph_sizes: ascending tokens of the graphs that replay such steps; each gets as many points as the others, and
            as steps that are too large for all of them.

    Raises:
        ValueError: limits within which hardly any such step fits.
    """
    rng = random.Random(20261124)
    points: list[Point] = []
    num_drawn = 0
    ends = [*(size for size in graph_sizes if size < max_num_batched_tokens), max_num_batched_tokens]
    begins = [min(8, ends[0]), *(size + 1 for size in ends[:-1])]
    while len(points) < num_points:
        num_drawn += 1
        if num_drawn > _MOST_DRAWS * num_points:
            raise ValueError(
                f"only {len(points)} of calibrate.num_points={num_points} steps fit "
                f"engine.max_model_len={max_model_len}, max_num_batched_tokens={max_num_batched_tokens} and the "
                f"{capacity_tokens} tokens that the KV cache has for them; raise what is small: 512 each do for one row"
            )
        band = len(points) % len(ends)
        total = _log_uniform(rng, begins[band], ends[band])
        most_decode = min(max_num_seqs - 1, total - 2)
        num_decode = 0 if most_decode < 1 or rng.random() < 1 / 3 else _log_uniform(rng, 1, most_decode)
        new = total - num_decode
        num_chunks = min(_log_uniform(rng, 1, 16), max_num_seqs - num_decode, max(1, new // 4))
        sizes = [new // num_chunks + (index < new % num_chunks) for index in range(num_chunks)]
        if min(sizes) < 2 or max(sizes) >= max_model_len - 40:
            continue
        decode_context = _log_uniform(rng, 32, max_model_len // 2)
        rows = [Row(max(1, int(decode_context * rng.uniform(0.5, 1.5)))) for _ in range(num_decode)]
        context = _log_uniform(rng, 16, max_model_len) if rng.random() < 1 / 4 else 0
        rows += [Row(min(context, max_model_len - 40 - size), size) for size in sizes]
        if all(row.start + 40 < max_model_len for row in rows) and _tokens(rows) + 64 * len(rows) <= capacity_tokens:
            points.append(rows)
    return points


def _tokens(rows: Point) -> int:
    return sum(row.start + row.num for row in rows)


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))
