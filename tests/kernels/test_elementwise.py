"""The fused elementwise operations against plain PyTorch in float64, on sizes that fill no whole vector too."""

import pytest
import torch
import torch.nn.functional as F

from framework.execution.kernels.cpu.elementwise import rms_norm, rotate_, silu_and_mul

pytestmark = pytest.mark.usefixtures("native_kernels")

DTYPES = [torch.float32, torch.bfloat16]
LIMIT = {torch.float32: 2e-6, torch.bfloat16: 8e-3}


def assert_close(got, exact):
    torch.testing.assert_close(got.double(), exact, rtol=LIMIT[got.dtype], atol=LIMIT[got.dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "size"), [(1, 576), (3, 37), (50, 1000)])
def test_rms_norm(dtype, num_tokens, size):
    x, weight = torch.randn(num_tokens, size).to(dtype), torch.randn(size).to(dtype)
    assert_close(rms_norm(x, weight, 1e-5), F.rms_norm(x.double(), (size,), weight.double(), 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "size"), [(1, 576), (3, 37), (50, 1000)])
def test_add_and_rms_norm(dtype, num_tokens, size):
    x, residual = torch.randn(2, num_tokens, size).to(dtype).unbind()
    weight, stream = torch.randn(size).to(dtype), x + residual
    residual = residual.clone()
    got = rms_norm(x, weight, 1e-5, residual)
    assert torch.equal(residual, stream)
    assert_close(got, F.rms_norm(stream.double(), (size,), weight.double(), 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "size"), [(1, 1536), (3, 37), (20, 1000)])
def test_silu_and_mul(dtype, num_tokens, size):
    gate_up = (torch.randn(num_tokens, 2 * size) * 5).to(dtype)
    gate, up = gate_up.double().chunk(2, dim=-1)
    assert_close(silu_and_mul(gate_up), F.silu(gate) * up)


def test_silu_at_the_ends():
    gate = torch.tensor([[-1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30, torch.nan]])
    got = silu_and_mul(torch.cat((gate, torch.ones_like(gate)), dim=1))
    torch.testing.assert_close(got[:, 1:], F.silu(gate)[:, 1:], equal_nan=True, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "head_size"), [(1, 64), (5, 80), (300, 16)])
def test_rotate(dtype, num_tokens, head_size):
    qkv = torch.randn(num_tokens, 7, head_size).to(dtype)
    cos, sin = torch.randn(2, num_tokens, 1, head_size).to(dtype).unbind()
    x = qkv[:, :5].double()
    exact = x * cos.double() + x.roll(head_size // 2, dims=-1) * sin.double()
    rest = qkv[:, 5:].clone()
    got = rotate_(qkv[:, :5], cos, sin)
    assert_close(got, exact)
    assert got.data_ptr() == qkv.data_ptr()
    assert torch.equal(qkv[:, 5:], rest)
