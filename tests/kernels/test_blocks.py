"""Products with GGUF blocks as they are, against `gguf`'s own dequantisation and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.execution.kernels.cpu import native
from framework.execution.kernels.cpu.blocks import BlockLinear, block_rows
from framework.models.layers.quantized import FORMATS, QuantizedRows

pytestmark = pytest.mark.usefixtures("native_kernels")
KINDS = sorted(FORMATS)


def random_rows(kind: int, rows: int, blocks: int, seed: int = 0) -> QuantizedRows:
    """Every bit of the blocks random, but for scales, which are finite and of the size of real ones."""
    generator, one = np.random.default_rng(seed), FORMATS[kind]
    raw = generator.integers(0, 256, (rows, blocks, one.num_bytes), dtype=np.uint8)
    for half in one.halves:
        scale = generator.normal(0, 0.02, (rows, blocks, 1)).astype(np.float16)
        raw[:, :, half : half + 2] = scale.view(np.uint8)
    return QuantizedRows(kind, raw.reshape(rows, -1))


def reference(piece: QuantizedRows) -> torch.Tensor:
    return torch.from_numpy(dequantize(piece.blocks, GGMLQuantizationType(piece.kind)))


def assert_close(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """Within the rounding of activations to 16 bits, of an fp32 sum, and of the output's type."""
    exact = x.double() @ weight.double().T
    largest = x.double().unflatten(1, (-1, 32)).abs().amax(-1).repeat_interleave(32, dim=1)
    limit = largest @ weight.double().abs().T * (1 / 65534 + 2**-22)
    # The minimum is multiplied by the sum of its inputs on its own, and may be larger than the weights.
    limit += x.double().abs() @ torch.ones_like(weight.double().T) * 2**-22 * weight.abs().max() * x.shape[1] ** 0.5
    if bias is not None:
        exact = exact + bias.double()
        limit = limit + bias.double().abs() * 2**-22
    if y.dtype == torch.bfloat16:
        limit = limit + exact.abs() * 2**-8
    error = (y.double() - exact).abs()
    assert y.shape == exact.shape
    assert (error <= limit).all(), float((error - limit).max())  # a NaN is not below its limit either


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_formats_is_ggufs(kind: int) -> None:
    quantisation = GGMLQuantizationType(kind)
    assert (FORMATS[kind].name, FORMATS[kind].numbers, FORMATS[kind].num_bytes) == (
        quantisation.name,
        *GGML_QUANT_SIZES[quantisation],
    )


@settings(max_examples=50, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    num_tokens=st.integers(1, 150),
    rows=st.integers(1, 70),
    units=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    has_bias=st.booleans(),
)
def test_any_shape(kinds, num_tokens, rows, units, dtype, has_bias) -> None:  # type: ignore[no-untyped-def]
    inputs = units * (32 if all(FORMATS[kind].numbers == 32 for kind in kinds) else 256)
    pieces = [random_rows(kind, rows + i, inputs // FORMATS[kind].numbers, seed=i) for i, kind in enumerate(kinds)]
    weight = torch.cat([reference(piece) for piece in pieces])
    bias = torch.randn(len(weight)) if has_bias else None
    x = (torch.randn(num_tokens, inputs) * torch.randn(num_tokens, inputs).exp()).to(dtype)
    poison_freed_memory(num_tokens * len(weight), dtype)
    assert_close(BlockLinear(pieces, bias)(x), x, weight, bias)


def poison_freed_memory(elements: int, dtype: torch.dtype) -> None:
    """What `torch.empty` of as many elements gives next, and what an output holds where nothing is written."""
    del [torch.full((elements,), torch.nan, dtype=dtype) for _ in range(3)][:]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_ggufs_to_the_last_bit(kind: int) -> None:
    piece = random_rows(kind, 77, 2)
    wanted = torch.tensor([5, 76, 0, 5])
    assert torch.equal(block_rows(piece, wanted, torch.float32), reference(piece)[wanted])
    assert torch.equal(block_rows(piece, wanted.int(), torch.bfloat16), reference(piece)[wanted].bfloat16())


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_batch_nor_on_threads(kind: int) -> None:
    kernel, before = BlockLinear([random_rows(kind, 77, 2)], None), torch.get_num_threads()
    x = torch.randn(150, FORMATS[kind].numbers * 2)
    whole = kernel(x)
    for num_rows in (*range(1, 27), 72, 73):
        assert torch.equal(kernel(x[num_rows : 2 * num_rows]), whole[num_rows : 2 * num_rows]), num_rows
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(kernel(x), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_in_its_row(bad: float) -> None:
    kernel, x = BlockLinear([random_rows(3, 33, 2)], None), torch.randn(9, 64)
    clean = kernel(x)
    x[4, 63] = bad
    y = kernel(x)
    assert y[4].isnan().all()
    assert torch.equal(y[:4], clean[:4])
    assert torch.equal(y[5:], clean[5:])


def test_zeros_denormals_and_large_numbers() -> None:
    piece = random_rows(12, 40, 1)
    kernel, weight = BlockLinear([piece], None), reference(piece)
    assert torch.equal(kernel(torch.zeros(2, 256)), torch.zeros(2, 40))
    assert (kernel(torch.full((1, 256), 1e-40)).abs() < 1e-30).all()
    x = torch.randn(3, 256) * 1e30
    assert_close(kernel(x), x, weight)


def test_strided_input_and_a_slice_of_columns() -> None:
    piece = random_rows(3, 50, 6)
    sliced = QuantizedRows(3, piece.blocks[:, 40:100])
    x = torch.randn(96, 7).T
    assert_close(BlockLinear([sliced], None)(x), x, reference(piece)[:, 64:160])


def test_wrong_input_is_explained() -> None:
    kernel = BlockLinear([random_rows(3, 8, 1)], None)
    for x in (torch.randn(2, 31), torch.randn(2, 32).half(), torch.randn(32)):
        with pytest.raises(ValueError, match=r"pass \[T, 32\] in float32 or bfloat16"):
            kernel(x)


def test_a_format_of_other_blocks_has_no_panels() -> None:
    size = native.library().servelab_block_panel_bytes
    assert size(6, 32, 32) == 0  # Q5_0
    assert size(12, 32, 128) == 0
    assert all(
        size(kind, 32, 512) == 32 * 512 // one.numbers * (one.num_bytes + 4 * (kind == 12))
        for kind, one in FORMATS.items()
    )
