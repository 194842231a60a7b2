"""Keys and values in e4m3, which has eight bits: how they are rounded, and in which type attention multiplies them.

e4m3 has three bits of mantissa between 2^-6 and 448, and no infinity (Micikevicius et al., "FP8 Formats for Deep
Learning", arXiv 2209.05433). We use no scales. float16 can hold each e4m3 number, and one instruction of the GPU
converts two of them, while the way to bfloat16 goes through float32. So products with such a cache are computed in
float16.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def to_cache(x, dtype: tl.constexpr):
    """Round to the type of the cache. In e4m3, values above the largest number become that number; NaN stays NaN."""
    if dtype == tl.float8e4nv:
        x = x.to(tl.float32)
        x = tl.where(x > 448.0, 448.0, tl.where(x < -448.0, -448.0, x))
    return x.to(dtype)


@triton.jit
def query_for_cache(q, scale_log2, cache_dtype: tl.constexpr):
    """The query in the type in which it is multiplied with the keys, and the factor that the scores still need.

    A float16 query for an e4m3 cache is scaled first, which keeps the products far from the limits of float16.
    """
    if cache_dtype == tl.float8e4nv and q.dtype != tl.float32:
        scaled = q.to(tl.float32) * scale_log2
        scaled = tl.where(scaled > 65504.0, 65504.0, tl.where(scaled < -65504.0, -65504.0, scaled))
        return scaled.to(tl.float16), 1.0
    else:  # Triton wants one type from all returns
        return q, scale_log2


@triton.jit
def unpack_e4m3(word, BYTE: tl.constexpr, dtype: tl.constexpr):
    """One of the four numbers in each 32-bit word. Byte 0 is the first in memory."""
    return (word >> (8 * BYTE)).to(tl.int8).to(tl.float8e4nv, bitcast=True).to(dtype)
