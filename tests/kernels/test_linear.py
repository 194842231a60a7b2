"""Packed matrix products against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.execution.kernels.cpu.linear import (
    NativeLinear,
    OneDNNLinear,
    TorchLinear,
    linear_kernel_name,
    pack_linear,
)

pytestmark = pytest.mark.usefixtures("native_kernels")

FP32_EPS, BF16_EPS = 2**-23, 2**-8


def assert_close(y, x, weight, bias):
    """Within the rounding of an fp32 sum and of the output's dtype."""
    exact = x.double() @ weight.double().T
    size = x.double().abs() @ weight.double().abs().T  # what rounding errors are proportional to
    if bias is not None:
        exact, size = exact + bias.double(), size + bias.double().abs()
    limit = size * FP32_EPS * (4 + x.shape[1] ** 0.5) + (exact.abs() * BF16_EPS if y.dtype == torch.bfloat16 else 0)
    assert y.shape == exact.shape
    assert ((y.double() - exact).abs() <= limit + 1e-30).all(), (y.double() - exact).abs().max()


@settings(max_examples=60, deadline=None)
@given(
    num_tokens=st.integers(1, 150),
    out_features=st.integers(1, 100),
    in_features=st.integers(1, 700),
    weight_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    input_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    has_bias=st.booleans(),
)
def test_any_shape(num_tokens, out_features, in_features, weight_dtype, input_dtype, has_bias):
    weight = torch.randn(out_features, in_features).to(weight_dtype)
    bias = torch.randn(out_features).to(weight_dtype) if has_bias else None
    x = torch.randn(num_tokens, in_features).to(input_dtype)
    assert_close(NativeLinear(weight, bias)(x), x, weight, bias)


def test_several_blocks_of_inputs_and_rows():
    weight, x = torch.randn(50, 2100), torch.randn(333, 2100)
    assert_close(NativeLinear(weight, None)(x), x, weight, None)


def test_strided_input_and_weight():
    wide, x = torch.randn(40, 90), torch.randn(64, 7)
    for view in (torch.randn(5, 128)[:, 10:74], x.T):
        weight = wide[:, 3 : 3 + view.shape[1]]
        assert_close(NativeLinear(weight, None)(view), view, weight, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_the_batch(dtype):
    kernel = NativeLinear(torch.randn(77, 301).to(dtype), None)
    x = torch.randn(256, 301)
    whole = kernel(x)
    for num_rows in range(1, 65):
        start = num_rows * 2
        assert torch.equal(kernel(x[start : start + num_rows]), whole[start : start + num_rows]), num_rows


def test_nan_stays_in_its_row():
    weight, x = torch.randn(33, 65), torch.randn(9, 65)
    clean = NativeLinear(weight, None)(x)
    x[4, 64] = torch.nan
    y = NativeLinear(weight, None)(x)
    assert y[4].isnan().all()
    assert torch.equal(y[:4], clean[:4])
    assert torch.equal(y[5:], clean[5:])


def test_leftovers_of_earlier_calls_are_not_read():
    NativeLinear(torch.randn(9, 66), None)(torch.full((30, 66), torch.nan))
    weight, x = torch.randn(9, 65).bfloat16(), torch.randn(30, 65)
    assert_close(NativeLinear(weight, None)(x), x, weight, None)


def test_every_thread_count():
    weight, x = torch.randn(200, 130), torch.randn(90, 130)
    kernel, before = NativeLinear(weight, None), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(kernel(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("kind", [OneDNNLinear, TorchLinear])
@pytest.mark.parametrize("num_tokens", [1, 16, 33])
def test_kernels_for_machines_without_a_compiler(kind, num_tokens):
    weight, bias, x = torch.randn(48, 96), torch.randn(48), torch.randn(num_tokens, 96)
    assert_close(kind(weight, bias)(x), x, weight, bias)


def test_choice():
    assert linear_kernel_name(torch.float32) == "native"
    assert linear_kernel_name(torch.float16) == "torch"
    assert type(pack_linear(torch.randn(3, 4), None)) is NativeLinear


def test_wrong_input_is_explained():
    kernel = NativeLinear(torch.randn(8, 16), None)
    for x in (torch.randn(2, 15), torch.randn(2, 16).half(), torch.randn(16)):
        with pytest.raises(ValueError, match=r"pass \[T, 16\] in float32 or bfloat16"):
            kernel(x)
    with pytest.raises(ValueError, match="pass a matrix on the CPU"):
        pack_linear(torch.randn(3), None)
