"""Products of a row are the same to the bit whatever the number of rows in the step, from 2 to 1,024."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

ROWS = (2, 16, 17, 64, 65, 128, 129, 256, 257, 700, 1024)
SHAPES = {"qwen3_0_6b": ((1024, 4096), (2048, 1024), (3072, 1024)), "smollm2": ((576, 960), (576, 576), (1536, 576))}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model", SHAPES)
def test_every_number_of_rows(model: str, dtype: torch.dtype) -> None:
    from framework.execution.kernels.cuda.norm import rms_norm
    from framework.execution.kernels.cuda.skinny import MAX_ROWS, skinny_linear
    from framework.execution.kernels.cuda.split_linear import MAX_ROWS as SPLIT_ROWS
    from framework.execution.kernels.cuda.split_linear import add_product, split_linear

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        if len(x) <= MAX_ROWS:
            return skinny_linear(x, weight)
        return split_linear(x, weight) if len(x) <= SPLIT_ROWS else F.linear(x, weight)

    def ending_a_block(x: Tensor, weight: Tensor) -> Tensor:
        residual = torch.zeros(len(x), len(weight), device="cuda")
        rms_norm(add_product(x, weight), torch.ones(len(weight), device="cuda", dtype=dtype), 1e-6, residual)
        return residual

    torch.manual_seed(1)
    for index, (num_inputs, num_outputs) in enumerate(SHAPES[model]):
        x = torch.randn(max(ROWS), num_inputs, device="cuda", dtype=dtype)
        weight = torch.randn(num_outputs, num_inputs, device="cuda", dtype=dtype) / num_inputs**0.5
        product = ending_a_block if index else plain
        found = {rows: product(x[:rows].contiguous(), weight)[0] for rows in ROWS}
        assert [rows for rows in ROWS if not torch.equal(found[rows], found[2])] == []
