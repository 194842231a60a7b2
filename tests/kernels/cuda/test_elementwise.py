"""Norm, gate and QKV kernels against the plain layers, which they replace."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from framework.execution.kernels.cuda.activation import silu_and_mul
from framework.execution.kernels.cuda.norm import rms_norm
from framework.execution.kernels.cuda.qkv import QKVShape, rotate_and_write, write_kv


@pytest.mark.parametrize("size", [64, 96, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(device: str, size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(size)
    x, residual = (torch.randn(5, size, device=device, dtype=dtype) for _ in range(2))
    weight = torch.randn(size, device=device, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    want = F.rms_norm(x, (size,), weight, 1e-5)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), want, rtol=tolerance, atol=tolerance)
    total = x + residual
    want = F.rms_norm(total, (size,), weight, 1e-5)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5, residual), want, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(residual, total, rtol=tolerance / 2, atol=0)  # the interpreter truncates to bfloat16


def test_silu_and_mul(device: str) -> None:
    gate_up = torch.randn(3, 2 * 1500, device=device)
    gate, up = gate_up.chunk(2, -1)
    torch.testing.assert_close(silu_and_mul(gate_up), F.silu(gate) * up, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_size"), [(4, 2, 16), (6, 3, 24), (3, 1, 64)])
@pytest.mark.parametrize("normed", [False, True])
def test_rotate_and_write(device: str, num_heads: int, num_kv_heads: int, head_size: int, normed: bool) -> None:
    generator = torch.Generator().manual_seed(num_heads)
    num_qk, half = num_heads + num_kv_heads, head_size // 2
    qkv = torch.randn(5, (num_qk + num_kv_heads) * head_size, generator=generator).to(device)
    cos_sin = torch.randn(40, head_size, generator=generator).to(device)
    weight = torch.randn(num_qk, head_size, generator=generator).to(device) if normed else None
    position = torch.tensor([3, 0, 39, 7, 11], device=device)
    slot = torch.tensor([5, 0, -1, 11, 7], device=device)
    cache = torch.full((2, 3, 4, num_kv_heads, head_size), torch.nan, device=device)
    x = qkv.view(5, -1, head_size).clone()
    qk = x[:, :num_qk]
    if weight is not None:
        qk = F.rms_norm(qk, (head_size,), None, 1e-6) * weight
    cos, sin = cos_sin[position, None, :half], cos_sin[position, None, half:]
    low, high = qk[..., :half], qk[..., half:]
    qk = torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

    q = rotate_and_write(
        qkv, QKVShape(num_heads, num_kv_heads, head_size), cos_sin, position, slot, cache, weight, 1e-6
    )
    torch.testing.assert_close(q, qk[:, :num_heads], rtol=1e-5, atol=1e-5)
    written = slot >= 0
    flat = cache.view(2, 12, num_kv_heads, head_size)
    torch.testing.assert_close(flat[0, slot[written]], qk[written, num_heads:], rtol=1e-5, atol=1e-5)
    assert torch.equal(flat[1, slot[written]], x[written, num_qk:])
    assert int(flat.isnan().all(-1).all(-1).sum()) == 2 * (12 - 4)


def test_write_kv(device: str) -> None:
    kv = torch.randn(4, 5, 3, 16, device=device)
    cache = torch.full((2, 2, 4, 2, 16), torch.nan, device=device)
    slot = torch.tensor([6, -1, 0, 3], device=device)
    write_kv(kv[:, 1, :2], kv[:, 3, 1:], slot, cache)
    flat = cache.view(2, 8, 2, 16)
    for row in (0, 2, 3):
        assert torch.equal(flat[0, slot[row]], kv[row, 1, :2])
        assert torch.equal(flat[1, slot[row]], kv[row, 3, 1:])
    assert int(flat.isnan().all(-1).all(-1).sum()) == 2 * 5
