"""The fused sampler draws what the plain one draws."""

from __future__ import annotations

import itertools

import pytest
import torch

from framework.execution.kernels.cuda.sampling.gumbel import gumbel_argmax, gumbel_best
from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.selection import gumbel_argmax as plain_gumbel_argmax
from framework.toolkit.samplers.temperature import RowTemperatures


@pytest.mark.parametrize("vocab_size", [37, 1024, 2500])
def test_draws_the_tokens_of_the_plain_sampler(device: str, vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    num_rows = 40
    logits = torch.randn(num_rows, vocab_size + 3, generator=generator)[:, :vocab_size]
    divisor = torch.rand(num_rows, 1, generator=generator) + 0.3
    weight = (torch.arange(num_rows) % 5 != 0).float()
    divisor[weight == 0] = 1.0
    seed = torch.randint(-(2**62), 2**62, (num_rows,), generator=generator)
    position = torch.randint(0, 2**20, (num_rows,), generator=generator)
    want = plain_gumbel_argmax(logits / divisor, seed, position, weight[:, None])
    moved = (x.to(device) for x in (logits, divisor.squeeze(1), weight, seed, position))
    assert gumbel_argmax(*moved).tolist() == want.tolist()


@pytest.mark.parametrize("cuts", [[0, 1500, 2500], [0, 8, 1024, 1032, 2500]])
def test_the_best_of_all_shares_is_the_draw_of_the_whole(device: str, cuts: list[int]) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(12, 2500, generator=generator).to(device)
    divisor, weight = torch.full((12,), 0.8, device=device), (torch.arange(12, device=device) % 5 != 0).float()
    seed, position = torch.arange(12, device=device) * 7919, torch.arange(12, device=device)
    whole = gumbel_argmax(logits, divisor, weight, seed, position)
    shares = [
        gumbel_best(logits[:, low:high], divisor, weight, seed, position, low) for low, high in itertools.pairwise(cuts)
    ]
    scores, tokens = (torch.stack(parts) for parts in zip(*shares, strict=True))
    assert tokens.gather(0, scores.argmax(0, keepdim=True))[0].tolist() == whole.tolist()
    assert len(set(scores.argmax(0).tolist())) > 1


@pytest.mark.parametrize("num_rows", range(1, 10))
def test_temperatures_begin_where_no_kernel_is_compiled_anew(device: str, num_rows: int) -> None:
    params = [SamplingParams(temperature=float(row)) for row in range(num_rows)]
    rows = RowTemperatures.of(params, torch.device(device), None)
    assert rows.divisor_R.data_ptr() % 16 == rows.noise_weight_R.data_ptr() % 16 == 0
    refilled = RowTemperatures.of(params[::-1], torch.device(device), rows)
    assert refilled.divisor_R.tolist() == [*map(float, range(num_rows - 1, 0, -1)), 1.0]
    assert refilled.noise_weight_R.tolist() == [1.0] * (num_rows - 1) + [0.0]
