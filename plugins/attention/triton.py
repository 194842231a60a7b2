"""Our own attention for GPUs, in Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

    from framework.kernels.cuda.decode_attention import DecodePlan

_MAX_HEAD_SIZE = 128
_E4M3_CAPABILITY = (8, 9)


@dataclass(slots=True)
class Metadata:
    """Decode rows come first; each kind is None when the step has none of it."""

    batch: BatchLayout
    decode: DecodePlan | None
    max_new_tokens: int
    """Of one prefill chunk; 0 when there is none."""


@ATTENTIONS.register("triton")
class TritonAttention(AttentionBackend):
    """Paged Triton kernels for any block size, fp32, bf16 or fp16: split-KV decode with packed query heads, prefill.

    The cache may be e4m3 (`executor.kv_dtype=fp8`), whose numbers reach up to 448; larger ones become that.

    Decode rows are split by a plan made on the device, so that a captured graph stays balanced while lengths grow. A
    token's result may depend, in the last bits, on how its batch was split.
    """

    graph_support = GraphSupport.DECODE
    separate_write = True

    def __init__(self, spec: AttentionSpec) -> None:
        from framework.kernels.cuda.decode_attention import PagedDecode, choose_tile

        super().__init__(spec)
        self._decode = PagedDecode(
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_size=spec.head_size,
            block_size=spec.block_size,
            scale=spec.scale,
            max_num_rows=spec.max_num_seqs,
            device=spec.device,
            tile=choose_tile(spec.dtype, spec.kv_dtype),
        )

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        from importlib.util import find_spec

        from framework.kernels.cuda.interpreter import interpreted

        if spec.device.type != "cuda" and not interpreted():
            return f"attention=triton runs on CUDA GPUs, not on {spec.device}; choose attention=sdpa"
        if find_spec("triton") is None:
            return "attention=triton needs the package triton; install it, or choose attention=sdpa"
        if spec.device.type == "cpu" and "bfloat16" in f"{spec.dtype} {spec.kv_dtype}":
            return "attention=triton has no bfloat16 under Triton's interpreter; choose executor.dtype=float32"
        if spec.kv_dtype.itemsize < 2 and "float8_e4m3fn" not in str(spec.kv_dtype):
            return f"attention=triton has no cache of {spec.kv_dtype}; set executor.kv_dtype=fp8 (e4m3) or auto"
        if spec.kv_dtype.itemsize < 2 and spec.device.type == "cuda":
            import torch

            if torch.cuda.get_device_capability(spec.device) < _E4M3_CAPABILITY:
                return "executor.kv_dtype=fp8: attention=triton needs an Ada or Hopper GPU or newer; choose auto"
        if spec.kv_dtype.itemsize < 2 and spec.head_size % 4:
            return f"executor.kv_dtype=fp8: attention=triton wants a head size of 4, 8, ..., not {spec.head_size}"
        if spec.head_size > _MAX_HEAD_SIZE:
            return (
                f"attention=triton has heads of at most {_MAX_HEAD_SIZE}, not {spec.head_size}; choose attention=sdpa"
            )
        return None

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> Metadata:
        num_decode = batch.num_decode_rows
        decode = None
        if num_decode:
            decode = self._decode.plan(batch.seq_lens_R[:num_decode], batch.block_table_RB[:num_decode])
        starts = batch.query_start_host
        new_tokens = [starts[row + 1] - starts[row] for row in range(num_decode, batch.num_rows)]
        return Metadata(batch, decode, max(new_tokens, default=0))

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Metadata
    ) -> Tensor:
        from framework.kernels.cuda.qkv import write_kv

        write_kv(k_TMH, v_TMH, metadata.batch.slot_mapping_T, kv_cache)
        return self.attend(layer, q_TNH, kv_cache, metadata)

    def attend(self, layer: int, q_TNH: Tensor, kv_cache: Tensor, metadata: Metadata) -> Tensor:
        import torch

        from framework.kernels.cuda.prefill_attention import paged_prefill

        batch = metadata.batch
        out_TNH = torch.empty(q_TNH.shape, dtype=q_TNH.dtype, device=q_TNH.device)
        num_decode = batch.num_decode_rows
        if metadata.decode is not None:
            self._decode(q_TNH[:num_decode], kv_cache, metadata.decode, out_TNH)
        if metadata.max_new_tokens:
            paged_prefill(
                q_TNH,
                kv_cache,
                batch.query_start_R1[num_decode:],
                batch.seq_lens_R[num_decode:],
                batch.block_table_RB[num_decode:],
                metadata.max_new_tokens,
                self.spec.scale,
                out_TNH,
            )
        return out_TNH
