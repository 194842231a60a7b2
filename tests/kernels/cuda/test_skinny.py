"""Products of a few rows, with each prologue and epilogue, against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from framework.execution.kernels.cuda.skinny import SkinnyTile, skinny_linear


@pytest.mark.parametrize("num_rows", [1, 2, 16])
@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(64, 48), (200, 100)])
def test_every_fusion(device: str, num_rows: int, num_inputs: int, num_outputs: int) -> None:
    torch.manual_seed(num_rows)
    x = torch.randn(num_rows, num_inputs, device=device)
    weight = torch.randn(2 * num_outputs, num_inputs, device=device) / num_inputs**0.5
    norm = torch.randn(num_inputs, device=device)
    normed = F.rms_norm(x, (num_inputs,), norm, 1e-6)
    tile = SkinnyTile(16, 256 if num_rows == 1 else 64, 4, 2)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(skinny_linear(x, weight), F.linear(x, weight), **close)
    torch.testing.assert_close(skinny_linear(x, weight, norm_K=norm, eps=1e-6), F.linear(normed, weight), **close)
    gate, up = F.linear(normed, weight).chunk(2, -1)
    gated = skinny_linear(x, weight, norm_K=norm, eps=1e-6, gated=True, tile=tile)
    torch.testing.assert_close(gated, F.silu(gate) * up, **close)
    stream = torch.randn(num_rows, 2 * num_outputs, device=device)
    want = stream + F.linear(x, weight)
    assert skinny_linear(x, weight, add_to_RN=stream, tile=tile) is stream
    torch.testing.assert_close(stream, want, **close)
