"""Attention for CPUs in C++: blockwise over the paged cache, nothing gathered and nothing padded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framework.interfaces.attention import AttentionBackend, AttentionSpec, BatchLayout, GraphSupport
from framework.registry import ATTENTIONS

if TYPE_CHECKING:
    from torch import Tensor

_OTHERWISE = "choose attention=sdpa"


@ATTENTIONS.register("paged_cpu")
class PagedCPU(AttentionBackend):
    """C++ attention over the paged cache, one call per layer for the whole mixed batch; fp32 or bf16.

    The query heads of a KV head share each read of it. Decode rows and tiles of prefill tokens are tasks of one queue
    for all threads. A token's result does not depend on its batch or on how its prompt was chunked. The kernels are
    compiled at first use, which takes some seconds once per machine.
    """

    graph_support = GraphSupport.NEVER
    supports_windows = True
    supports_softcap = True

    @classmethod
    def unsupported_reason(cls, spec: AttentionSpec) -> str | None:
        from framework.execution.kernels.cpu import native
        from framework.execution.kernels.cpu.attention import HEAD_SIZE_MULTIPLE

        if spec.device.type != "cpu":
            return f"attention=paged_cpu runs on the CPU, not on {spec.device}; {_OTHERWISE}"
        for name, dtype in (("dtype", spec.dtype), ("KV cache dtype", spec.kv_dtype)):
            if dtype not in native.SUPPORTED_DTYPES:
                return f"attention=paged_cpu has no kernel for {name} {dtype}, only float32 and bfloat16; {_OTHERWISE}"
        if spec.head_size % HEAD_SIZE_MULTIPLE:
            return (
                f"attention=paged_cpu needs a head size that is a multiple of {HEAD_SIZE_MULTIPLE}, "
                f"not {spec.head_size}; {_OTHERWISE}"
            )
        if reason := native.unavailable_reason():
            return f"attention=paged_cpu: {reason}; or {_OTHERWISE}"
        return None

    def implementation(self) -> str:
        from framework.execution.kernels.cpu import native

        return native.version()

    def kv_cache_shape(self, num_blocks: int) -> tuple[int, ...]:
        from framework.execution.kernels.cpu.attention import cache_shape

        spec = self.spec
        return cache_shape(num_blocks, spec.num_kv_heads, spec.block_size, spec.head_size)

    def plan(self, batch: BatchLayout) -> BatchLayout:
        return batch

    def forward(
        self, layer: int, q_TNH: Tensor, k_TMH: Tensor, v_TMH: Tensor, kv_cache: Tensor, metadata: BatchLayout
    ) -> Tensor:
        from framework.execution.kernels.cpu.attention import paged_attention

        spec = self.spec
        return paged_attention(
            *(q_TNH, k_TMH, v_TMH, kv_cache, metadata, spec.block_size, spec.scale), spec.window(layer), spec.softcap
        )
