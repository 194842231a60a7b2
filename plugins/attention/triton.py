"""Our own attention for GPUs, in Triton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

    from framework.execution.kernels.cuda.decode_attention import DecodePlan
    from framework.execution.kernels.cuda.prefill_attention import PrefillPlan

_MAX_HEAD_SIZE = 128
_E4M3_CAPABILITY = (8, 9)
_BLOCK_SIZE = 256
"""A tile of keys then lies in one block, and a step changes few entries of the block tables: 1 % more throughput than
blocks of 16 (nano_bench, Qwen3-0.6B, H100)."""


@dataclass(slots=True)
class Metadata:
    """Decode rows come first; each kind is None when the step has none of it."""

    slot_mapping_T: Tensor
    decode: dict[int | None, DecodePlan] | None
    """The plan for each window that a layer has, None for no window"""
    num_decode_rows: int
    """That `decode` knows; those past the last one have length 0"""
    prefill: PrefillPlan | None


@ATTENTIONS.register("triton")
class TritonAttention(AttentionBackend):
    """Paged Triton kernels for any block size, fp32, bf16 or fp16: split-KV decode with packed query heads, prefill.

    The cache may be e4m3 (`executor.kv_dtype=fp8`), whose numbers reach up to 448; larger ones become that.

    Rows are cut by plans made on the device, so that a captured graph stays balanced while lengths grow, and replays
    for any mixture of decode rows and chunks. How a batch was cut moves the order of float32 sums, and nothing else.
    """

    graph_support = GraphSupport.MIXED
    separate_write = True
    supports_windows = True

    def __init__(self, spec: AttentionSpec) -> None:
        from framework.execution.kernels.cuda import decode_attention, prefill_attention

        super().__init__(spec)
        shape: dict[str, Any] = {
            "num_heads": spec.num_heads,
            "num_kv_heads": spec.num_kv_heads,
            "head_size": spec.head_size,
            "block_size": spec.block_size,
            "scale": spec.scale,
            "max_num_rows": spec.max_num_seqs,
            "device": spec.device,
        }
        types = spec.dtype, spec.kv_dtype, spec.head_size
        self._decode = decode_attention.PagedDecode(**shape, tile=decode_attention.choose_decode_tile(*types))
        self._prefill = prefill_attention.PagedPrefill(
            **shape,
            max_num_tokens=spec.max_num_batched_tokens,
            dtype=spec.dtype,
            kv_dtype=spec.kv_dtype,
            tile=prefill_attention.choose_prefill_tile(*types),
            windows=spec.windows,
        )

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        from importlib.util import find_spec

        from framework.execution.kernels.cuda.interpreter import interpreted

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

    @classmethod
    def preferred_block_size(cls, device_type: str, parameters: Mapping[str, Any]) -> int:
        return _BLOCK_SIZE

    def implementation(self) -> str:
        from importlib.metadata import version

        from framework.execution.kernels import OWN

        return f"{OWN} Triton kernels (triton {version('triton')})"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> Metadata:
        if batch.kinds_vary:
            return self._plan_any(batch)
        num_decode, starts_R1 = batch.num_decode_rows, batch.query_start_R1
        lengths_R, table_RB = batch.seq_lens_R, batch.block_table_RB
        decode = self._plan_decode(lengths_R[:num_decode], table_RB[:num_decode]) if num_decode else None
        prefill = None
        if num_decode < batch.num_rows:
            starts_R1 = starts_R1[num_decode:]
            prefill = self._prefill.plan(
                starts_R1, lengths_R[num_decode:], table_RB[num_decode:], starts_R1.diff(), num_tokens=batch.num_tokens
            )
        return Metadata(batch.slot_mapping_T, decode, num_decode, prefill)

    def _plan_decode(self, lengths_R: Tensor, table_RB: Tensor) -> dict[int | None, DecodePlan]:
        windows = dict.fromkeys(self.spec.windows or (None,))
        return {window: self._decode.plan(lengths_R, table_RB, window) for window in windows}

    def _plan_any(self, batch: BatchLayout) -> Metadata:
        """Both kernels get all rows, and each leaves out those of the other."""
        starts_R1, lengths_R, table_RB = batch.query_start_R1, batch.seq_lens_R, batch.block_table_RB
        new_R = starts_R1.diff()
        is_decode_R = new_R == 1
        decode = self._plan_decode(lengths_R.masked_fill(~is_decode_R, 0), table_RB)
        new_R = new_R.masked_fill(is_decode_R, 0)
        prefill = self._prefill.plan(starts_R1, lengths_R, table_RB, new_R, num_tokens=batch.num_tokens, few_rows=True)
        return Metadata(batch.slot_mapping_T, decode, batch.num_rows, prefill)

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: Metadata
    ) -> Tensor:
        from framework.execution.kernels.cuda.qkv import write_kv

        write_kv(k_TMH, v_TMH, metadata.slot_mapping_T, kv_cache)
        return self.attend(layer, q_TNH, kv_cache, metadata)

    def attend(self, layer: int, q_TNH: Tensor, kv_cache: Tensor, metadata: Metadata) -> Tensor:
        import torch

        out_TNH = torch.empty(q_TNH.shape, dtype=q_TNH.dtype, device=q_TNH.device)
        window = self.spec.window(layer)
        if metadata.decode is not None:
            self._decode(q_TNH[: metadata.num_decode_rows], kv_cache, metadata.decode[window], out_TNH)
        if metadata.prefill is not None:
            self._prefill(q_TNH, kv_cache, metadata.prefill, out_TNH, window)
        return out_TNH
