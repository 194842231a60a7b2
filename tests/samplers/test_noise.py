"""The noise is the hash that it claims to be, and statistically Exp(1) and independent in every direction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from framework.toolkit.samplers import noise
from framework.toolkit.samplers.noise import exponential_noise

M64, M32 = (1 << 64) - 1, (1 << 32) - 1


def uniforms(seeds: list[int], positions: list[int], vocab_size: int) -> np.ndarray:
    noise_RV = exponential_noise(torch.tensor(seeds), torch.tensor(positions), vocab_size)
    return -np.expm1(-noise_RV.numpy().astype(np.float64))


def mix_64(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & M64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & M64
    return x ^ x >> 31


def reference(seed: int, position: int, token: int) -> float:
    """The same function in unbounded integers and float64."""
    golden = 0x9E3779B97F4A7C15
    key = mix_64((mix_64((seed + golden) & M64) + position * golden) & M64)
    x = token + 1
    x = (x ^ x >> 16) * 0x7FEB352D & M32
    x = (x ^ x >> 15) * 0x846CA68B & M32
    x = (x ^ x >> 16) ^ key & M32
    x = x * (key >> 32 | 1) & M32
    x = (x ^ x >> 16) * 0x846CA68B & M32
    signed = x - (1 << 32) if x >> 31 else x
    y = signed ^ signed >> 15
    assert 0 <= y < 1 << 31
    return -math.log1p(-(y + 0.5) * 2.0**-31)


def test_equals_the_hash_in_unbounded_integers() -> None:
    seeds, positions = [0, 1, -1, 2**63 - 1, -(2**63), 123456789012], [0, 1, 5, 2**31, 77, 131071]
    got = exponential_noise(torch.tensor(seeds), torch.tensor(positions), 3000).numpy()
    want = np.array([[reference(s, p, token) for token in range(3000)] for s, p in zip(seeds, positions, strict=True)])
    np.testing.assert_allclose(got[want < 1], want[want < 1], rtol=1e-5)  # the variates that win, to the last bits
    np.testing.assert_allclose(np.exp(-got), np.exp(-want), atol=2.0**-22)


def test_a_row_does_not_depend_on_its_batch() -> None:
    seed_R, position_R = torch.arange(9) * 17, torch.arange(9) % 3
    all_RV = exponential_noise(seed_R, position_R, 1001)
    for row in range(9):
        assert torch.equal(all_RV[row], exponential_noise(seed_R[row : row + 1], position_R[row : row + 1], 1001)[0])


@pytest.mark.parametrize("shape", ["one row", "one token", "consecutive seeds"])
def test_is_exponential(shape: str) -> None:
    if shape == "one row":
        sample = uniforms([7], [3], 400_000)[0]
    elif shape == "one token":
        sample = uniforms([7] * 100_000, list(range(100_000)), 3)[:, 1]
    else:
        sample = uniforms(list(range(100_000)), [11] * 100_000, 3)[:, 2]
    assert sample.min() > 0
    assert np.isfinite(sample).all()
    assert stats.kstest(sample, "uniform").pvalue > 1e-4


def test_the_largest_and_smallest_variates_are_finite_and_positive() -> None:
    bits = torch.tensor([0, 1, 2**31 - 200, 2**31 - 1], dtype=torch.int32).to(torch.float32)
    largest = 24 * math.log(2)
    got = noise._to_exponential(bits).tolist()
    assert got == pytest.approx([2.0**-32, 3 * 2.0**-32, largest - math.log(3), largest], rel=1e-5)


def test_small_variates_are_finely_resolved() -> None:
    noise_RV = exponential_noise(torch.arange(60), torch.arange(60), 50_000)
    assert noise_RV.isfinite().all()
    assert noise_RV.min() > 0
    small = int((noise_RV < 1e-5).sum())  # 30 expected; float32 steps of 2^-24 near 1 would make them a few lumps
    assert 8 < small < 65
    assert len(noise_RV[noise_RV < 1e-5].unique()) > 0.9 * small
    assert 15 < noise_RV.max() < 16.8


@pytest.mark.parametrize("direction", ["position", "seed", "token", "seed and position"])
@pytest.mark.parametrize("lag", [1, 2, 64])
def test_neighbours_are_independent(direction: str, lag: int) -> None:
    n = 400
    if direction == "position":
        u = uniforms([5] * n, list(range(n)), 512)
        a, b = u[:-lag], u[lag:]
    elif direction == "seed":
        u = uniforms(list(range(n)), [9] * n, 512)
        a, b = u[:-lag], u[lag:]
    elif direction == "token":
        u = uniforms([5] * n, list(range(n)), 512)
        a, b = u[:, :-lag], u[:, lag:]
    else:  # seed s at position p + lag beside seed s + lag at position p
        a, b = uniforms(list(range(n)), [lag + 3] * n, 512), uniforms([s + lag for s in range(n)], [3] * n, 512)
    table, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=16, range=[[0, 1], [0, 1]])
    assert stats.chi2_contingency(table).pvalue > 1e-5
    small, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=[0, 0.01, 1])  # the variates that win
    assert stats.chi2_contingency(small).pvalue > 1e-5


@pytest.mark.parametrize("argument", ["seed", "position"])
def test_each_input_bit_flips_half_of_the_output_bits(argument: str) -> None:
    base = list(range(0, 4000, 37))
    for bit in range(0, 63 if argument == "seed" else 31, 3):
        flipped = [value ^ 1 << bit for value in base]
        same = [21] * len(base)
        pairs = ((base, same), (flipped, same)) if argument == "seed" else ((same, base), (same, flipped))
        a, b = ((uniforms(s, p, 64) * 2**16).astype(np.uint32) for s, p in pairs)
        bits = np.unpackbits((a ^ b).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 2:], axis=1)
        assert np.abs(bits.mean(axis=0) - 0.5).max() < 6 * 0.5 / math.sqrt(len(bits)), bit
