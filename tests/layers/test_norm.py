"""Norms against `transformers`: equal bit for bit in fp32."""

import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from framework.models.layers.norm import QKNorm, RMSNorm
from framework.models.layers.placement import Placement


def reference(weight: torch.Tensor) -> Qwen3RMSNorm:
    norm = Qwen3RMSNorm(weight.shape[0], eps=1e-5)
    norm.weight.data = weight
    return norm


def place(dtype: torch.dtype) -> Placement:
    return Placement(torch.device("cpu"), dtype)


@torch.inference_mode()
def test_fp32_is_exact_and_the_residual_is_updated_in_place():
    x, residual, weight = torch.randn(7, 24), torch.randn(7, 24), torch.randn(24)
    norm = RMSNorm(24, 1e-5, place=place(torch.float32))
    norm.load("weight", weight)
    assert torch.equal(norm(x), reference(weight)(x))
    total = x + residual
    assert torch.equal(norm.add_and_norm(x, residual), reference(weight)(total))
    assert torch.equal(residual, total)


@torch.inference_mode()
def test_bf16_accumulates_in_fp32():
    x, weight = (100 * torch.randn(7, 512)).bfloat16(), torch.randn(512).bfloat16()
    norm = RMSNorm(512, 1e-5, place=place(torch.bfloat16))
    norm.load("weight", weight)
    torch.testing.assert_close(norm(x).float(), reference(weight.float())(x.float()), rtol=2**-8, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_query_and_key_heads_get_their_own_weights(dtype):
    qk, q_weight, k_weight = torch.randn(5, 6, 16).to(dtype), torch.randn(16).to(dtype), torch.randn(16).to(dtype)
    norm = QKNorm(4, 2, 16, 1e-5, place=place(dtype))
    norm.load("weight", q_weight, "q")
    norm.load("weight", k_weight, "k")
    expected = torch.cat((reference(q_weight)(qk[:, :4]), reference(k_weight)(qk[:, 4:])), dim=1)
    assert torch.equal(norm(qk), expected)
