"""Batch sizes that graphs are captured for."""

from __future__ import annotations

from bisect import bisect_left

from framework.interfaces.graph import BatchShape, GraphKey

_SMALL = (1, 2, 4, 8)
_STEP = 16


def row_buckets(max_num_seqs: int, sizes: list[int] | None) -> list[int]:
    """Ascending sizes up to `max_num_seqs`, which is always one of them; by default 1, 2, 4, 8, then every 16.

    Raises:
        ValueError: a size is below 1.
    """
    chosen = [*_SMALL, *range(_STEP, max_num_seqs + 1, _STEP)] if sizes is None else sizes
    if bad := [size for size in chosen if size < 1]:
        raise ValueError(f"graph.sizes holds {bad[0]}, but a batch has at least 1 row; remove it")
    return sorted({size for size in chosen if size < max_num_seqs} | {max_num_seqs})


def decode_key(shape: BatchShape, sizes: list[int]) -> GraphKey | None:
    """The smallest bucket for decode rows; None for other batches and for more rows than the largest has."""
    if not shape.decode_only:
        return None
    index = bisect_left(sizes, shape.num_rows)
    return GraphKey(sizes[index], sizes[index]) if index < len(sizes) else None
