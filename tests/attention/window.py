"""A windowed attention as somebody might write it: fast, wrong, and until it says so in no record."""

from __future__ import annotations

from typing import Any

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout
from framework.registry import ATTENTIONS


@ATTENTIONS.register("window")
class Window(AttentionBackend):
    """Each token attends to the last `num_tokens` tokens."""

    exact = False

    def __init__(self, spec: AttentionSpec, *, num_tokens: int = 16) -> None:
        super().__init__(spec)
        self.num_tokens = num_tokens

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        return None if spec.device.type == "cpu" else "attention=window runs on a CPU; set executor.device=cpu"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        spec = self.spec
        return (2, num_blocks, spec.block_size, spec.num_kv_heads, spec.head_size)

    def plan(self, batch: BatchLayout) -> BatchLayout:
        return batch

    def forward(self, layer: int, q_TNH: Any, k_TMH: Any, v_TMH: Any, kv_cache: Any, batch: Any) -> Any:
        size, written = self.spec.block_size, batch.slot_mapping_T >= 0
        for cache, new in zip(kv_cache, (k_TMH, v_TMH), strict=True):
            cache.view(-1, *cache.shape[2:])[batch.slot_mapping_T[written]] = new[written].to(cache.dtype)
        out = q_TNH.new_zeros(q_TNH.shape)
        for row in range(batch.num_rows):
            for token in range(int(batch.query_start_R1[row]), int(batch.query_start_R1[row + 1])):
                last = int(batch.positions_T[token])
                seen = range(max(0, last + 1 - self.num_tokens), last + 1)
                slots = [int(batch.block_table_RB[row, at // size]) * size + at % size for at in seen]
                group = q_TNH.shape[1] // self.spec.num_kv_heads
                k, v = (x.view(-1, *x.shape[2:])[slots].repeat_interleave(group, 1) for x in kv_cache)
                weights = ((q_TNH[token] * k).sum(-1) * self.spec.scale).softmax(0)
                out[token] = (weights[..., None] * v).sum(0)
        return out
