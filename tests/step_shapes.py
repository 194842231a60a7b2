"""Steps as a cost model sees them."""

from __future__ import annotations

from framework.interfaces.cost_model import StepShape
from framework.interfaces.graph import GraphScope


def decode_shape(rows: int, kv_tokens: int, padded_rows: int) -> StepShape:
    """A decode step of `rows` rows that read `kv_tokens` positions together, in a graph of `padded_rows` rows."""
    return StepShape(
        num_tokens=rows,
        num_rows=rows,
        num_decode_rows=rows,
        num_sampled=rows,
        decode_kv_tokens=kv_tokens,
        prefill_kv_tokens=0,
        prefill_pairs=0,
        scope=GraphScope.STEP,
        padded_tokens=padded_rows,
        padded_rows=padded_rows,
    )
