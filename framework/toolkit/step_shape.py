"""The work of a step as a cost model and a forecast see it: of a sealed batch, or of rows that nobody has planned."""

from __future__ import annotations

from collections.abc import Iterable

from framework.interfaces.cost_model import StepShape
from framework.interfaces.executor import StepBatch
from framework.interfaces.graph import GraphKey, GraphScope
from framework.interfaces.scheduler import RequestView


def shape_of(rows: Iterable[tuple[RequestView, int]]) -> StepShape:
    """The work of a step that runs so many pending tokens of each request, at least 1. The graph is left open, and the
    rows are taken for those of the step before."""
    num_tokens = num_rows = num_decode = num_sampled = decode_kv = prefill_kv = pairs = longest = 0
    for request, num in rows:
        start = request.num_computed
        num_tokens += num
        num_rows += 1
        num_sampled += num == request.num_tokens - start
        if num == 1:
            num_decode += 1
            decode_kv += start + 1
            continue
        prefill_kv += start + num
        longest = max(longest, start + num)
        pairs += num * start + num * (num + 1) // 2
    return StepShape(
        num_tokens=num_tokens,
        num_rows=num_rows,
        num_decode_rows=num_decode,
        num_sampled=num_sampled,
        decode_kv_tokens=decode_kv,
        prefill_kv_tokens=prefill_kv,
        prefill_pairs=pairs,
        scope=None,
        padded_tokens=num_tokens,
        padded_rows=num_rows,
        longest_chunk_kv=longest,
    )


def step_shape(
    batch: StepBatch,
    key: GraphKey | None = None,
    scope: GraphScope | None = None,
    captures: bool = False,
    new_rows: bool = False,
) -> StepShape:
    """The work of `batch`, as a cost model sees it."""
    starts, num_decode, num_rows = batch.starts, batch.num_decode_rows, len(batch.slots)
    decode_kv = sum(starts[:num_decode]) + num_decode if num_decode != num_rows else sum(starts) + num_rows
    prefill_kv = pairs = longest = 0
    for row in range(num_decode, num_rows):
        start, num = starts[row], batch.row_tokens[row]
        prefill_kv += start + num
        longest = max(longest, start + num)
        pairs += num * start + num * (num + 1) // 2
    return StepShape(
        num_tokens=batch.num_tokens,
        num_rows=num_rows,
        num_decode_rows=num_decode,
        num_sampled=batch.samples.count(True),
        decode_kv_tokens=decode_kv,
        prefill_kv_tokens=prefill_kv,
        prefill_pairs=pairs,
        scope=scope,
        padded_tokens=key.num_tokens if key is not None else batch.num_tokens,
        padded_rows=key.num_rows or num_rows if key is not None else num_rows,
        captures=captures,
        new_rows=new_rows,
        longest_chunk_kv=longest,
    )
