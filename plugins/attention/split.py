"""One backend for decode rows and another for prefill rows, over the same KV cache."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Metadata:
    """The plans of both backends. The first `num_decode_tokens` of the step's tokens are decode rows."""

    num_decode_tokens: int
    decode: Any
    """None when the step has no decode rows"""
    prefill: Any
    """None when the step has no prefill rows"""


@ATTENTIONS.register("split")
class Split(AttentionBackend):
    """Decode rows are bound by memory, prefill chunks by arithmetic: each kind goes to the backend that suits it.

    They run one after the other, which leaves part of the machine idle each time (what POD-Attention, Kamath et al.,
    arXiv 2410.18038, fuses them for). Captured for decode rows only, and if `decode` can be: in a mixed batch the
    number of decode rows says how much work each of the two gets.

    Args:
        prefill: registered backend of rows with several tokens, with its default parameters.
        decode: registered backend of rows with one token, likewise.

    Raises:
        ValueError: a name that does not exist, a backend that can't run here, or two with different KV cache layouts.
    """

    def __init__(self, spec: AttentionSpec, *, prefill: str = "sdpa", decode: str = "sdpa") -> None:
        super().__init__(spec)
        self.prefill, self.decode = _build("prefill", prefill, spec), _build("decode", decode, spec)
        self.exact = self.prefill.exact and self.decode.exact
        self.graph_support = min(self.decode.graph_support, GraphSupport.DECODE)
        shapes = [(one.kv_cache_shape(5), _probe_shape(one)) for one in (self.prefill, self.decode)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"attention=split: prefill={prefill} and decode={decode} lay out the KV cache differently "
                f"({shapes[0][0]} and {shapes[1][0]} for 5 blocks); choose two that share a layout, or one for both"
            )

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        return None  # it runs wherever its backends do; which these are is known at construction, which asks them

    @classmethod
    def preferred_block_size(cls, device_type: str, parameters: Mapping[str, Any]) -> int:
        names = (parameters.get("prefill", "sdpa"), parameters.get("decode", "sdpa"))
        return max(ATTENTIONS.get(name).preferred_block_size(device_type, {}) for name in names)

    def implementation(self) -> str:
        return f"prefill: {self.prefill.implementation()}; decode: {self.decode.implementation()}"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return self.decode.kv_cache_shape(num_blocks)

    def plan(self, batch: BatchLayout) -> Metadata:
        num_decode = batch.num_decode_rows
        if num_decode == batch.num_rows:  # as it is, padding included: its buffers may belong to a graph
            return Metadata(batch.num_tokens, self.decode.plan(batch), None)
        if num_decode == 0:
            return Metadata(0, None, self.prefill.plan(batch))
        decode, prefill = _halves(batch)
        return Metadata(num_decode, self.decode.plan(decode), self.prefill.plan(prefill))

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Metadata
    ) -> Tensor:
        import torch

        qkv = (q_TNH, k_TMH, v_TMH)
        if metadata.prefill is None:
            return self.decode.forward(layer, *qkv, kv_cache, metadata.decode)
        if metadata.decode is None:
            return self.prefill.forward(layer, *qkv, kv_cache, metadata.prefill)
        num_decode = metadata.num_decode_tokens
        q, k, v = (x[:num_decode] for x in qkv)
        decode_TNH = self.decode.forward(layer, q, k, v, kv_cache, metadata.decode)
        q, k, v = (x[num_decode:] for x in qkv)
        prefill_TNH = self.prefill.forward(layer, q, k, v, kv_cache, metadata.prefill)
        return torch.cat((decode_TNH, prefill_TNH))


def _build(key: str, name: str, spec: AttentionSpec) -> AttentionBackend:
    reason = ATTENTIONS.get(name).unsupported_reason(spec)
    if reason is not None:
        raise ValueError(f"attention.{key}={name}: {reason}")
    backend: AttentionBackend = ATTENTIONS.build({"name": name}, spec)
    return backend


def _probe_shape(backend: AttentionBackend) -> tuple[int, ...]:
    """The cache's shape for sizes that all differ, so that axes which happen to be of one size are told apart."""
    probe = copy.copy(backend)
    probe.spec = dataclasses.replace(backend.spec, num_heads=14, num_kv_heads=7, block_size=32, head_size=128)
    return probe.kv_cache_shape(5)


def _halves(batch: BatchLayout) -> tuple[BatchLayout, BatchLayout]:
    """The decode rows, one token each, and the rest with the step's padding."""
    split = batch.num_decode_rows
    decode = BatchLayout(
        num_rows=split,
        num_tokens=split,
        num_decode_rows=split,
        query_start_R1=batch.query_start_R1[: split + 1],
        seq_lens_R=batch.seq_lens_R[:split],
        block_table_RB=batch.block_table_RB[:split],
        slot_mapping_T=batch.slot_mapping_T[:split],
        positions_T=batch.positions_T[:split],
        query_start_host=batch.query_start_host[: split + 1],
        seq_lens_host=batch.seq_lens_host[:split],
    )
    prefill = BatchLayout(
        num_rows=batch.num_rows - split,
        num_tokens=batch.num_tokens - split,
        num_decode_rows=0,
        query_start_R1=batch.query_start_R1[split:] - split,
        seq_lens_R=batch.seq_lens_R[split:],
        block_table_RB=batch.block_table_RB[split:],
        slot_mapping_T=batch.slot_mapping_T[split:],
        positions_T=batch.positions_T[split:],
        query_start_host=[start - split for start in batch.query_start_host[split:]],
        seq_lens_host=batch.seq_lens_host[split:],
    )
    return decode, prefill
