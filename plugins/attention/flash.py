"""Attention by the flash-attn package (FlashAttention-2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_MULTIPLE = 256
_MIN_CAPABILITY = (8, 0)
_MAX_HEAD_SIZE = 256
_OTHERWISE = "choose attention=triton"


@dataclass(slots=True)
class Metadata:
    """The chunks' query starts count from the first chunk; None when the step has none."""

    batch: BatchLayout
    chunk_start_R1: Tensor | None
    context_start_R1: Tensor | None
    """Cumulative lengths of the chunks' contexts"""
    max_new_tokens: int
    max_seq_len: int


@ATTENTIONS.register("flash")
class FlashAttention(AttentionBackend):
    """FlashAttention-2 (Dao 2023, arXiv 2307.08691) over the paged cache, from the package flash-attn.

    Decode rows go through `flash_attn_with_kvcache`, which splits long contexts; chunks, prefix hits included, through
    `flash_attn_varlen_func` with the block table. The package wants blocks of a multiple of 256 tokens.
    """

    graph_support = GraphSupport.DECODE
    separate_write = True

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        import importlib.util

        import torch

        if spec.device.type != "cuda":
            return f"attention=flash runs on CUDA GPUs, not on {spec.device}; choose attention=sdpa"
        if importlib.util.find_spec("flash_attn") is None:
            return f"attention=flash needs the package flash-attn (pip install flash-attn); or {_OTHERWISE}"
        if torch.cuda.get_device_capability(spec.device) < _MIN_CAPABILITY:
            return f"attention=flash needs an Ampere GPU or newer; {_OTHERWISE}"
        if spec.dtype not in (torch.bfloat16, torch.float16) or spec.kv_dtype != spec.dtype:
            return (
                f"attention=flash wants bfloat16 or float16 throughout, not {spec.dtype} with a cache of "
                f"{spec.kv_dtype}; set executor.dtype=bfloat16, or {_OTHERWISE}"
            )
        if spec.block_size % _BLOCK_MULTIPLE:
            return (
                f"attention=flash needs blocks of a multiple of {_BLOCK_MULTIPLE} tokens, not {spec.block_size}; set "
                f"engine.block_size={_BLOCK_MULTIPLE}, or {_OTHERWISE}"
            )
        if spec.head_size % 8 or spec.head_size > _MAX_HEAD_SIZE:
            return (
                f"attention=flash needs a head size of 8, 16, ..., {_MAX_HEAD_SIZE}, not {spec.head_size}; {_OTHERWISE}"
            )
        return None

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> Metadata:
        first = batch.num_decode_rows
        if first == batch.num_rows:
            return Metadata(batch, None, None, 0, 0)
        starts = batch.query_start_host
        return Metadata(
            batch,
            batch.query_start_R1[first:] - first,
            _cumulative(batch.seq_lens_R[first:]),
            max(starts[row + 1] - starts[row] for row in range(first, batch.num_rows)),
            max(batch.seq_lens_host[first:]),
        )

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Metadata
    ) -> Tensor:
        from framework.execution.kernels.cuda.qkv import write_kv

        write_kv(k_TMH, v_TMH, metadata.batch.slot_mapping_T, kv_cache)
        return self.attend(layer, q_TNH, kv_cache, metadata)

    def attend(self, layer: int, q_TNH: Tensor, kv_cache: Tensor, metadata: Metadata) -> Tensor:
        import torch
        from flash_attn import flash_attn_varlen_func, flash_attn_with_kvcache

        batch, scale = metadata.batch, self.spec.scale
        k_cache, v_cache = kv_cache.unbind(0)
        num_decode, num_tokens = batch.num_decode_rows, batch.num_tokens
        if metadata.chunk_start_R1 is None and num_decode == q_TNH.shape[0]:
            return self._decode(flash_attn_with_kvcache, q_TNH, k_cache, v_cache, batch)
        out_TNH = torch.empty(q_TNH.shape, dtype=q_TNH.dtype, device=q_TNH.device)
        if num_decode:
            out_TNH[:num_decode] = self._decode(flash_attn_with_kvcache, q_TNH[:num_decode], k_cache, v_cache, batch)
        if metadata.chunk_start_R1 is not None:
            out_TNH[num_decode:num_tokens] = flash_attn_varlen_func(
                q_TNH[num_decode:num_tokens],
                k_cache,
                v_cache,
                cu_seqlens_q=metadata.chunk_start_R1,
                cu_seqlens_k=metadata.context_start_R1,
                max_seqlen_q=metadata.max_new_tokens,
                max_seqlen_k=metadata.max_seq_len,
                softmax_scale=scale,
                causal=True,
                block_table=batch.block_table_RB[num_decode:],
            )
        return out_TNH

    def _decode(self, attend: object, q_RNH: Tensor, k_cache: Tensor, v_cache: Tensor, batch: BatchLayout) -> Tensor:
        num_rows = batch.num_decode_rows
        out_R1NH: Tensor = attend(  # type: ignore[operator]
            q_RNH.unsqueeze(1),
            k_cache,
            v_cache,
            cache_seqlens=batch.seq_lens_R[:num_rows],
            block_table=batch.block_table_RB[:num_rows],
            softmax_scale=self.spec.scale,
            causal=True,
        )
        return out_R1NH.squeeze(1)


def _cumulative(lengths_R: Tensor) -> Tensor:
    import torch
    from torch.nn.functional import pad

    return pad(lengths_R.cumsum(0, dtype=torch.int32), (1, 0))
