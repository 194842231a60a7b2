"""Graphs of whole steps, with or without prompts in them."""

from __future__ import annotations

from bisect import bisect_left

from framework.interfaces.graph import BatchShape, GraphKey, GraphLimits
from framework.registry import GRAPHS
from plugins.graphs.full import Full

_SMALL_TOKENS = (16, 32, 64, 128, 256)
_STEP = 128
"""To 2,048 tokens; twice that beyond"""


@GRAPHS.register("mixed")
class Mixed(Full):
    """Like `full`, but steps with prompt chunks are captured whole too, by number of tokens, for any mixture of rows.

    Launching the kernels of a step one by one takes milliseconds, which is longer than a small model needs for hundreds
    of tokens. It needs an attention backend that plans mixed batches on the device (`attention=triton`).
    """

    needs_mixed = True

    def __init__(
        self, *, sizes: list[int] | None = None, token_sizes: list[int] | None = None, max_tokens: int = 1024
    ) -> None:
        """
        Args:
            sizes: the sizes of decode batches, as for `bucketed`.
            token_sizes: the sizes of other batches, in place of 16, 32, 64, 128, then every 128 up to 2,048 and every
                256 beyond.
            max_tokens: the largest of these sizes. Larger steps run eagerly, and their launches hide behind the work
                of the device. A small model on a fast GPU can use 4,096, and a large one no more than 1,024. Each
                graph keeps its logits.
        """
        super().__init__(sizes=sizes)
        if max_tokens < 2:
            raise ValueError(f"graph.max_tokens={max_tokens} must be at least 2; or choose graph=full")
        if bad := [size for size in token_sizes or () if size < 2]:
            raise ValueError(f"graph.token_sizes holds {bad[0]}, but a chunk has at least 2 tokens; remove it")
        self._wanted_tokens, self._max_tokens = token_sizes, max_tokens
        self._mixed_keys: list[GraphKey] = []

    def keys(self, limits: GraphLimits) -> list[GraphKey]:
        largest = min(self._max_tokens, limits.max_num_batched_tokens)
        steps = (*range(256 + _STEP, 2049, _STEP), *range(2048 + 2 * _STEP, largest, 2 * _STEP))
        wanted = self._wanted_tokens or [*_SMALL_TOKENS, *steps]
        sizes = sorted({size for size in wanted if size < largest} | {largest})
        rows = limits.max_num_seqs
        self._mixed_keys = [
            GraphKey(size, min(size - 1, rows)) for size in sizes if size > 1 and limits.mixed_supported
        ]
        return sorted(super().keys(limits) + self._mixed_keys, reverse=True)

    def select(self, shape: BatchShape) -> GraphKey | None:
        if shape.decode_only:
            return super().select(shape)
        index = bisect_left(self._mixed_keys, shape.num_tokens, key=lambda key: key.num_tokens)
        return self._mixed_keys[index] if index < len(self._mixed_keys) else None
