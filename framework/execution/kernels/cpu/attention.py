"""Attention of a mixed batch over the paged cache, in one call per layer. The kernel is in src/attention.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from framework.execution.kernels.cpu import native
from framework.interfaces.attention import BatchLayout

HEAD_SIZE_MULTIPLE = 16
"""The head size is a multiple of this, because heads are read in whole vectors of the widest registers."""


def cache_shape(num_blocks: int, num_kv_heads: int, block_size: int, head_size: int) -> tuple[int, ...]:
    """The dimensions are the block, the KV head, K or V, and one row that holds K transposed [H, block_size] or
    V [block_size, H]."""
    return (num_blocks, num_kv_heads, 2, block_size * head_size)


def paged_attention(
    q_TNH: Tensor,
    k_TMH: Tensor,
    v_TMH: Tensor,
    kv_cache: Tensor,
    batch: BatchLayout,
    block_size: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Write the step's K and V to their slots, and attend. Returns [T, N, H] in the dtype of q.

    q, k and v have the same dtype. The cache may have another one. Both are float32 or bfloat16. The results of the
    tokens that pad the batch are zeros.
    `window` and `softcap` are as in `AttentionSpec`.
    """
    num_tokens, num_heads, head_size = q_TNH.shape
    num_kv_heads = k_TMH.shape[1]
    assert q_TNH.dtype == k_TMH.dtype == v_TMH.dtype
    assert kv_cache.is_contiguous()
    assert kv_cache.shape[1:] == (num_kv_heads, 2, block_size * head_size)
    assert batch.slot_mapping_T.dtype == torch.int64
    assert batch.slot_mapping_T.is_contiguous()
    for table in (batch.query_start_R1, batch.seq_lens_R, batch.block_table_RB):
        assert table.dtype == torch.int32
        assert table.shape[-1] == 1 or table.stride(-1) == 1
    q_TNH, k_TMH, v_TMH = (x if x.stride()[1:] == (head_size, 1) else x.contiguous() for x in (q_TNH, k_TMH, v_TMH))
    out_TNH = torch.empty((num_tokens, num_heads, head_size), dtype=q_TNH.dtype)
    if num_tokens > batch.num_tokens:
        out_TNH[batch.num_tokens :] = 0
    native.library().servelab_paged_attention(
        q_TNH.data_ptr(),
        q_TNH.stride(0),
        k_TMH.data_ptr(),
        k_TMH.stride(0),
        v_TMH.data_ptr(),
        v_TMH.stride(0),
        native.dtype_code(q_TNH.dtype),
        out_TNH.data_ptr(),
        kv_cache.data_ptr(),
        native.dtype_code(kv_cache.dtype),
        batch.slot_mapping_T.data_ptr(),
        batch.query_start_R1.data_ptr(),
        batch.seq_lens_R.data_ptr(),
        batch.block_table_RB.data_ptr(),
        batch.block_table_RB.stride(0),
        batch.num_rows,
        num_heads,
        num_kv_heads,
        head_size,
        block_size,
        scale,
        window or 0,
        softcap or 0.0,
        torch.get_num_threads(),
    )
    return out_TNH
