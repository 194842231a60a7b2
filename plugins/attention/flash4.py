"""Attention by the CuTe kernels of FlashAttention-4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

_CAPABILITIES = (9, 10, 11)
_OTHERWISE = "choose attention=triton"


@dataclass(slots=True)
class Metadata:
    """The step's rows, and the most new tokens and the longest context of one."""

    batch: BatchLayout
    max_new_tokens: int
    max_seq_len: int


@ATTENTIONS.register("flash4")
class FlashAttention4(AttentionBackend):
    """FlashAttention-4 over the paged cache, from the package flash-attn-4 (compiled at run time, Hopper and newer).

    Decode rows and chunks go through one call of `flash_attn_varlen_func`, which splits long contexts by itself.
    """

    graph_support = GraphSupport.NEVER  # how it splits depends on lengths that it asks the host for
    separate_write = True

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        import importlib.util

        import torch

        if spec.device.type != "cuda":
            return f"attention=flash4 runs on CUDA GPUs, not on {spec.device}; choose attention=sdpa"
        if importlib.util.find_spec("flash_attn") is None or importlib.util.find_spec("flash_attn.cute") is None:
            return f"attention=flash4 needs the package flash-attn-4 (pip install flash-attn-4); or {_OTHERWISE}"
        major = torch.cuda.get_device_capability(spec.device)[0]
        if major not in _CAPABILITIES:
            return f"attention=flash4 has paged kernels for compute capability 9 to 11, not {major}; {_OTHERWISE}"
        if spec.dtype not in (torch.bfloat16, torch.float16) or spec.kv_dtype != spec.dtype:
            return (
                f"attention=flash4 wants bfloat16 or float16 throughout, not {spec.dtype} with a cache of "
                f"{spec.kv_dtype}; set executor.dtype=bfloat16 executor.kv_dtype=auto, or {_OTHERWISE}"
            )
        largest = 256 if major == 9 else 128
        if spec.head_size % 8 or spec.head_size > largest:
            return f"attention=flash4 needs a head size of 8, 16, ..., {largest}, not {spec.head_size}; {_OTHERWISE}"
        return None

    def implementation(self) -> str:
        from importlib.metadata import version

        return f"flash-attn-4 {version('flash-attn-4')}"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> Metadata:
        starts = batch.query_start_host
        most = max(starts[row + 1] - starts[row] for row in range(batch.num_rows))
        return Metadata(batch, most, max(batch.seq_lens_host))

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Metadata
    ) -> Tensor:
        from framework.execution.kernels.cuda.qkv import write_kv

        write_kv(k_TMH, v_TMH, metadata.batch.slot_mapping_T, kv_cache)
        return self.attend(layer, q_TNH, kv_cache, metadata)

    def attend(self, layer: int, q_TNH: Tensor, kv_cache: Tensor, metadata: Metadata) -> Tensor:
        import torch
        from flash_attn.cute import flash_attn_varlen_func

        batch = metadata.batch
        k_cache, v_cache = kv_cache.unbind(0)
        result = flash_attn_varlen_func(
            q_TNH[: batch.num_tokens],
            k_cache,
            v_cache,
            cu_seqlens_q=batch.query_start_R1,
            seqused_k=batch.seq_lens_R,
            max_seqlen_q=metadata.max_new_tokens,
            max_seqlen_k=metadata.max_seq_len,
            page_table=batch.block_table_RB,
            softmax_scale=self.spec.scale,
            causal=True,
            num_splits=0,
        )
        attended_TNH: Tensor = result[0] if isinstance(result, tuple) else result
        if batch.num_tokens == q_TNH.shape[0]:
            return attended_TNH
        out_TNH = torch.empty(q_TNH.shape, dtype=q_TNH.dtype, device=q_TNH.device)
        out_TNH[: batch.num_tokens] = attended_TNH
        return out_TNH
