"""Keys and values in e4m3, eight bits each: how they are rounded, and in what type attention works on them.

e4m3 has three bits of mantissa from 2^-6 to 448 and neither scales nor infinity (Micikevicius et al., "FP8 Formats for
Deep Learning", arXiv 2209.05433). float16 holds each of its numbers, and two become float16 in one instruction of the
GPU; to bfloat16 it would be a detour over float32. So products with such a cache are taken in float16.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def to_cache(x, dtype: tl.constexpr):
    """Round to the cache's type; in e4m3 what is larger than its largest number becomes that, and NaN stays NaN."""
    if dtype == tl.float8e4nv:
        x = x.to(tl.float32)
        x = tl.where(x > 448.0, 448.0, tl.where(x < -448.0, -448.0, x))
    return x.to(dtype)


@triton.jit
def query_for_cache(q, scale_log2, cache_dtype: tl.constexpr):
    """The query in the type of its products with the keys, and what their scores are still to be multiplied with.

    A float16 query for a narrow cache is scaled first, which keeps it far from float16's limits.
    """
    if cache_dtype == tl.float8e4nv and q.dtype != tl.float32:
        scaled = q.to(tl.float32) * scale_log2
        scaled = tl.where(scaled > 65504.0, 65504.0, tl.where(scaled < -65504.0, -65504.0, scaled))
        return scaled.to(tl.float16), 1.0
    else:  # an early return would have to agree in type
        return q, scale_log2


@triton.jit
def unpack_e4m3(word, BYTE: tl.constexpr, dtype: tl.constexpr):
    """One of the four numbers in each 32-bit word, byte 0 the first in memory."""
    return (word >> (8 * BYTE)).to(tl.int8).to(tl.float8e4nv, bitcast=True).to(dtype)
