"""FlashAttention: the package flash-attn on a GPU, our own C++ kernel on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_MULTIPLE = 256
_MIN_CAPABILITY = (8, 0)
_MAX_HEAD_SIZE = 256
_OTHERWISE = "choose attention=triton"
_ON_CPU = ("paged_cpu", "sdpa")
"""CPU backends that compute exact attention in tiles with an online softmax. The first one that runs is taken."""


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
    """FlashAttention (Dao 2022, arXiv 2205.14135): exact attention in tiles, with an online softmax.

    On a GPU it is FlashAttention-2 (arXiv 2307.08691) from the package flash-attn, over the paged cache. Decode rows go
    through `flash_attn_with_kvcache`, which splits long contexts; chunks, prefix hits included, go through
    `flash_attn_varlen_func` with the block table. The package wants blocks of a multiple of 256 tokens.

    On a CPU it is our own C++ kernel (`paged_cpu`), or PyTorch's (`sdpa`) where that one cannot run. The record's
    `attention_implementation` says which code ran.
    """

    graph_support = GraphSupport.DECODE
    separate_write = True

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec)
        self._on_cpu: AttentionBackend | None = None
        if spec.device.type == "cpu":
            name, self._passed_over = _choose_on_cpu(spec)
            assert name is not None, self._passed_over
            self._on_cpu = ATTENTIONS.build({"name": name}, spec)
            self.graph_support, self.separate_write = self._on_cpu.graph_support, self._on_cpu.separate_write

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        import importlib.util

        import torch

        if spec.device.type == "cpu":
            name, passed_over = _choose_on_cpu(spec)
            return None if name else "; ".join(passed_over.values())
        if spec.device.type != "cuda":
            return f"attention=flash runs on CUDA GPUs and CPUs, not on {spec.device}; choose attention=sdpa"
        if importlib.util.find_spec("flash_attn") is None:
            return (
                "attention=flash is the package flash-attn on a GPU, which is not installed: "
                f"pip install flash-attn --no-build-isolation; or {_OTHERWISE}"
            )
        if torch.cuda.get_device_capability(spec.device) < _MIN_CAPABILITY:
            return f"attention=flash needs an Ampere GPU or newer; {_OTHERWISE}"
        if spec.dtype not in (torch.bfloat16, torch.float16) or spec.kv_dtype != spec.dtype:
            return (
                f"attention=flash wants bfloat16 or float16 throughout, not {spec.dtype} with a cache of "
                f"{spec.kv_dtype}; set executor.dtype=bfloat16 executor.kv_dtype=auto, or {_OTHERWISE}"
            )
        if spec.block_size % _BLOCK_MULTIPLE:
            return (
                f"attention=flash needs blocks of a multiple of {_BLOCK_MULTIPLE} tokens, not {spec.block_size}; set "
                f"engine.block_size=null, or {_OTHERWISE}"
            )
        if spec.head_size % 8 or spec.head_size > _MAX_HEAD_SIZE:
            return (
                f"attention=flash needs a head size of 8, 16, ..., {_MAX_HEAD_SIZE}, not {spec.head_size}; {_OTHERWISE}"
            )
        return None

    @classmethod
    def preferred_block_size(cls, device_type: str, parameters: Mapping[str, Any]) -> int:
        return 16 if device_type == "cpu" else _BLOCK_MULTIPLE

    def implementation(self) -> str:
        if self._on_cpu is not None:
            since = "".join(f"; not {name}: {reason}" for name, reason in self._passed_over.items())
            return self._on_cpu.implementation() + since
        from importlib.metadata import version

        return f"flash-attn {version('flash-attn')}"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        if self._on_cpu is not None:
            return self._on_cpu.kv_cache_shape(num_blocks)
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> Any:
        if self._on_cpu is not None:
            return self._on_cpu.plan(batch)
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
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Any
    ) -> Tensor:
        if self._on_cpu is not None:
            return self._on_cpu.forward(layer, q_TNH, k_TMH, v_TMH, kv_cache, metadata)
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


def _choose_on_cpu(spec: AttentionSpec) -> tuple[str | None, dict[str, str]]:
    """The backend that computes it on a CPU, None if none can, and why those before it cannot."""
    passed_over: dict[str, str] = {}
    for name in _ON_CPU:
        reason = ATTENTIONS.get(name).unsupported_reason(spec)
        if reason is None:
            return name, passed_over
        passed_over[name] = reason
    return None, passed_over
