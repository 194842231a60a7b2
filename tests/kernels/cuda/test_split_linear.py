"""Products of dozens of rows, whole and in parts, against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from framework.execution.kernels.cuda.norm import rms_norm
from framework.execution.kernels.cuda.split_linear import PARTS, SplitTile, max_rows, split_linear

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize(("num_rows", "num_inputs", "num_outputs"), [(17, 64, 64), (35, 200, 50), (40, 264, 20)])
def test_whole_gated_and_in_parts(device: str, num_rows: int, num_inputs: int, num_outputs: int) -> None:
    torch.manual_seed(num_rows)
    x = torch.randn(num_rows, num_inputs, device=device)
    weight = torch.randn(2 * num_outputs, num_inputs, device=device) / num_inputs**0.5
    want = F.linear(x, weight)
    tile = SplitTile(32, 32, 32, 4, 2)  # several tiles of rows
    torch.testing.assert_close(split_linear(x, weight, tile=tile), want, **CLOSE)
    gate, up = want.chunk(2, -1)
    torch.testing.assert_close(split_linear(x, weight, gated=True, tile=tile), F.silu(gate) * up, **CLOSE)
    parts = split_linear(x, weight, in_parts=True, tile=tile)
    assert parts.shape == (PARTS, num_rows, 2 * num_outputs)
    torch.testing.assert_close(parts.sum(0), want, **CLOSE)


def test_large_weights_go_to_the_library_earlier() -> None:
    assert max_rows(torch.empty(6144, 1024, dtype=torch.bfloat16, device="meta")) == 64
    assert max_rows(torch.empty(24_576, 4096, dtype=torch.bfloat16, device="meta")) == 16
    assert max_rows(torch.empty(6144, 1024, dtype=torch.float32, device="meta")) == 1


def test_the_norm_adds_the_parts(device: str) -> None:
    torch.manual_seed(1)
    parts, residual = torch.randn(3, 5, 72, device=device), torch.randn(5, 72, device=device)
    weight = torch.randn(72, device=device)
    total = residual + parts.sum(0)
    want = F.rms_norm(total, (72,), weight, 1e-5)
    torch.testing.assert_close(rms_norm(parts, weight, 1e-5, residual), want, **CLOSE)
    torch.testing.assert_close(residual, total, **CLOSE)
