"""Attention by the FlashInfer package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

_HEAD_SIZES = (64, 128, 256)
_MIN_CAPABILITY = (8, 0)
_WORKSPACE_BYTES = 128 << 20
"""What its documentation recommends for partial results"""
_OTHERWISE = "choose attention=triton"


@ATTENTIONS.register("flashinfer")
class FlashInfer(AttentionBackend):
    """FlashInfer (Ye et al., arXiv 2501.01005) over the paged cache, from the package flashinfer-python.

    Decode rows and chunks go through one `BatchPrefillWithPagedKVCacheWrapper`, whose plan balances them on the host
    once per step and is the same for all layers. Its kernels are compiled at first use.
    """

    graph_support = GraphSupport.NEVER  # planned on the host
    separate_write = True

    def __init__(self, spec: AttentionSpec) -> None:
        import torch
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper

        super().__init__(spec)
        workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=spec.device)
        self._wrapper: Any = BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        import importlib.util

        import torch

        if spec.device.type != "cuda":
            return f"attention=flashinfer runs on CUDA GPUs, not on {spec.device}; choose attention=sdpa"
        if importlib.util.find_spec("flashinfer") is None:
            return f"attention=flashinfer needs the package flashinfer-python (pip install it); or {_OTHERWISE}"
        if torch.cuda.get_device_capability(spec.device) < _MIN_CAPABILITY:
            return f"attention=flashinfer needs an Ampere GPU or newer; {_OTHERWISE}"
        if spec.dtype not in (torch.bfloat16, torch.float16) or spec.kv_dtype != spec.dtype:
            return (
                f"attention=flashinfer wants bfloat16 or float16 throughout here, not {spec.dtype} with a cache of "
                f"{spec.kv_dtype}; set executor.dtype=bfloat16 executor.kv_dtype=auto, or {_OTHERWISE}"
            )
        if spec.head_size not in _HEAD_SIZES:
            return f"attention=flashinfer needs a head size of {_HEAD_SIZES}, not {spec.head_size}; {_OTHERWISE}"
        return None

    def implementation(self) -> str:
        from importlib.metadata import version

        return f"flashinfer-python {version('flashinfer-python')}"

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        return (2, num_blocks, self.spec.block_size, self.spec.num_kv_heads, self.spec.head_size)

    def plan(self, batch: BatchLayout) -> BatchLayout:
        import torch

        spec, size = self.spec, self.spec.block_size
        lengths_R = torch.tensor(batch.seq_lens_host, dtype=torch.int32)
        blocks_R = (lengths_R + size - 1) // size
        self._wrapper.plan(
            torch.tensor(batch.query_start_host, dtype=torch.int32),
            torch.nn.functional.pad(blocks_R.cumsum(0, dtype=torch.int32), (1, 0)),
            _used_blocks(batch.block_table_RB, batch.seq_lens_R, size, int(blocks_R.sum())),
            lengths_R - (blocks_R - 1) * size,
            spec.num_heads,
            spec.num_kv_heads,
            spec.head_size,
            size,
            causal=True,
            sm_scale=spec.scale,
            q_data_type=spec.dtype,
            kv_data_type=spec.kv_dtype,
        )
        return batch

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: BatchLayout
    ) -> Tensor:
        from framework.execution.kernels.cuda.qkv import write_kv

        write_kv(k_TMH, v_TMH, metadata.slot_mapping_T, kv_cache)
        return self.attend(layer, q_TNH, kv_cache, metadata)

    def attend(self, layer: int, q_TNH: Tensor, kv_cache: Tensor, metadata: BatchLayout) -> Tensor:
        import torch

        num_tokens = metadata.num_tokens
        attended_TNH: Tensor = self._wrapper.run(q_TNH[:num_tokens].contiguous(), kv_cache.unbind(0))
        if num_tokens == q_TNH.shape[0]:
            return attended_TNH
        out_TNH = torch.empty(q_TNH.shape, dtype=q_TNH.dtype, device=q_TNH.device)
        out_TNH[:num_tokens] = attended_TNH
        return out_TNH


def _used_blocks(block_table_RB: Tensor, seq_lens_R: Tensor, block_size: int, total: int) -> Tensor:
    """[total] int32: the rows' blocks one row after the other, without asking the device how many they are."""
    import torch

    blocks_R = (seq_lens_R.long() + block_size - 1) // block_size
    before_R = blocks_R.cumsum(0) - blocks_R
    row_U = torch.arange(len(blocks_R), device=blocks_R.device).repeat_interleave(blocks_R, output_size=total)
    column_U = torch.arange(total, device=blocks_R.device) - before_R[row_U]
    return block_table_RB[row_U, column_U]
