"""Everything between the QKV projection and attention in one kernel: QK norm, rotary positions, KV-cache write.

A program handles one token. Queries are rotated in place. Keys and values go to the cache only.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from framework.execution.kernels.cuda.fp8 import to_cache
from framework.execution.kernels.cuda.pdl import launch_options, let_next_start, wait_for_previous


@dataclass(frozen=True, slots=True)
class QKVShape:
    """The numbers of heads on this rank, and the head size."""

    num_heads: int
    num_kv_heads: int
    head_size: int


@triton.jit
def _rotate_and_write_kernel(
    qkv_ptr, weight_ptr, cos_sin_ptr, position_ptr, slot_ptr, k_cache_ptr, v_cache_ptr,
    stride_block, stride_offset, stride_head, eps,
    NUM_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HALF: tl.constexpr, HALF_PAD: tl.constexpr,
    HEADS_PAD: tl.constexpr, KV_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr, NORM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_next_start(PDL)
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(position_ptr + token)
    slot = tl.load(slot_ptr + token)
    head_size: tl.constexpr = 2 * HALF
    num_qk: tl.constexpr = NUM_HEADS + NUM_KV_HEADS
    head = tl.arange(0, HEADS_PAD)[:, None]
    column = tl.arange(0, HALF_PAD)[None, :]
    mask = (head < num_qk) & (column < HALF)
    offset = head * head_size + column
    row_ptr = qkv_ptr + token * ((num_qk + NUM_KV_HEADS) * head_size)
    half = tl.arange(0, HALF_PAD)
    angle_ptr = cos_sin_ptr + position * head_size + half
    cos = tl.load(angle_ptr, mask=half < HALF, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(angle_ptr + HALF, mask=half < HALF, other=0.0).to(tl.float32)[None, :]
    if NORM:
        low_weight = tl.load(weight_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        high_weight = tl.load(weight_ptr + offset + HALF, mask=mask, other=0.0).to(tl.float32)
    wait_for_previous(PDL)
    low = tl.load(row_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    high = tl.load(row_ptr + offset + HALF, mask=mask, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / head_size + eps)[:, None]
        low *= scale * low_weight
        high *= scale * high_weight
    new_low = low * cos - high * sin
    new_high = high * cos + low * sin
    is_query = mask & (head < NUM_HEADS)
    tl.store(row_ptr + offset, new_low.to(qkv_ptr.dtype.element_ty), mask=is_query)
    tl.store(row_ptr + offset + HALF, new_high.to(qkv_ptr.dtype.element_ty), mask=is_query)
    if slot >= 0:
        at = (slot // BLOCK_SIZE) * stride_block + (slot % BLOCK_SIZE) * stride_offset
        is_key = mask & (head >= NUM_HEADS)
        key_ptr = k_cache_ptr + at + (head - NUM_HEADS) * stride_head + column
        tl.store(key_ptr, to_cache(new_low, k_cache_ptr.dtype.element_ty), mask=is_key)
        tl.store(key_ptr + HALF, to_cache(new_high, k_cache_ptr.dtype.element_ty), mask=is_key)
        kv_head = tl.arange(0, KV_PAD)[:, None]
        kv_mask = (kv_head < NUM_KV_HEADS) & (column < HALF)
        source_ptr = row_ptr + (num_qk + kv_head) * head_size + column
        value_ptr = v_cache_ptr + at + kv_head * stride_head + column
        low_value = tl.load(source_ptr, mask=kv_mask, other=0.0)
        high_value = tl.load(source_ptr + HALF, mask=kv_mask, other=0.0)
        tl.store(value_ptr, to_cache(low_value, v_cache_ptr.dtype.element_ty), mask=kv_mask)
        tl.store(value_ptr + HALF, to_cache(high_value, v_cache_ptr.dtype.element_ty), mask=kv_mask)


def rotate_and_write(
    qkv_TX: Tensor,
    shape: QKVShape,
    cos_sin_PH: Tensor,
    position_T: Tensor,
    slot_T: Tensor,
    kv_cache: Tensor,
    weight_XH: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Returns the rotated queries [T, N, H], which are a view of `qkv_TX`. Its keys are left as they were.

    Args:
        qkv_TX: [T, (N + 2 M) H], contiguous.
        cos_sin_PH: H/2 cosines and then H/2 sines for each position.
        slot_T: [T] int64 cache slots. A token with -1 is not written.
        kv_cache: [2 (K, V), num_blocks, block_size, M, H] in any order in memory with H innermost. e4m3 saturates.
        weight_XH: [N + M, H], the norm weights of each head (Qwen3), or None for no norm.
    """
    num_heads, num_kv_heads, head_size = shape.num_heads, shape.num_kv_heads, shape.head_size
    k_cache, v_cache = kv_cache.unbind(0)
    _rotate_and_write_kernel[(qkv_TX.shape[0],)](
        qkv_TX,
        cos_sin_PH if weight_XH is None else weight_XH,
        cos_sin_PH,
        position_T,
        slot_T,
        k_cache,
        v_cache,
        *k_cache.stride()[:3],
        eps,
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HALF=head_size // 2,
        HALF_PAD=triton.next_power_of_2(head_size // 2),
        HEADS_PAD=triton.next_power_of_2(num_heads + num_kv_heads),
        KV_PAD=triton.next_power_of_2(num_kv_heads),
        BLOCK_SIZE=kv_cache.shape[2],
        NORM=weight_XH is not None,
        num_warps=4,
        **launch_options(),
    )
    return qkv_TX[:, : num_heads * head_size].unflatten(1, (num_heads, head_size))


@triton.jit(do_not_specialize_on_alignment=["slot_ptr"])  # `attention=split` passes a slice of the step
def _write_kernel(
    k_ptr, v_ptr, slot_ptr, k_cache_ptr, v_cache_ptr, stride_k_token, stride_v_token, stride_k_head, stride_v_head,
    stride_block, stride_offset, stride_head,
    NUM_KV_HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, KV_PAD: tl.constexpr, HEAD_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_ptr + token)
    head = tl.arange(0, KV_PAD)[:, None]
    column = tl.arange(0, HEAD_PAD)[None, :]
    mask = (head < NUM_KV_HEADS) & (column < HEAD_SIZE) & (slot >= 0)
    at = (slot // BLOCK_SIZE) * stride_block + (slot % BLOCK_SIZE) * stride_offset + head * stride_head + column
    key = tl.load(k_ptr + token * stride_k_token + head * stride_k_head + column, mask=mask, other=0.0)
    value = tl.load(v_ptr + token * stride_v_token + head * stride_v_head + column, mask=mask, other=0.0)
    tl.store(k_cache_ptr + at, to_cache(key, k_cache_ptr.dtype.element_ty), mask=mask)
    tl.store(v_cache_ptr + at, to_cache(value, v_cache_ptr.dtype.element_ty), mask=mask)


def write_kv(k_TMH: Tensor, v_TMH: Tensor, slot_T: Tensor, kv_cache: Tensor) -> None:
    """Write the keys and values of the step to their slots. The arguments are those of `rotate_and_write`."""
    _, num_kv_heads, head_size = k_TMH.shape
    k_cache, v_cache = kv_cache.unbind(0)
    _write_kernel[(slot_T.shape[0],)](
        k_TMH,
        v_TMH,
        slot_T,
        k_cache,
        v_cache,
        k_TMH.stride(0),
        v_TMH.stride(0),
        k_TMH.stride(1),
        v_TMH.stride(1),
        *k_cache.stride()[:3],
        NUM_KV_HEADS=num_kv_heads,
        HEAD_SIZE=head_size,
        KV_PAD=triton.next_power_of_2(num_kv_heads),
        HEAD_PAD=triton.next_power_of_2(head_size),
        BLOCK_SIZE=kv_cache.shape[2],
        num_warps=4,
    )
