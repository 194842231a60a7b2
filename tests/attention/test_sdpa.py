"""What the reference backend promises beyond the right numbers."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given
from hypothesis import strategies as st

from plugins.attention.sdpa import _LENGTH_RATIO, SDPA, _similar_lengths
from tests.attention.cases import Problem, Target, layout

PROBLEM = Problem(Target("sdpa"), torch.float32, 4, 2, 16, 4, ((0, 6), (0, 3)), num_padding=2, seed=0)


def test_writes_the_tokens_of_the_step_and_nothing_else() -> None:
    backend = SDPA(PROBLEM.spec)
    cache = torch.full(backend.kv_cache_shape(4), torch.nan)
    batch = layout(PROBLEM, [torch.tensor([3, 0]), torch.tensor([2])], [(0, 0, 6), (1, 0, 3)])
    q_TNH, k_TMH, v_TMH = (torch.randn(11, heads, 16) for heads in (4, 2, 2))
    backend.forward(0, q_TNH, k_TMH, v_TMH, cache, backend.plan(batch))
    written = [12, 13, 14, 15, 0, 1, 8, 9, 10]
    for stored, new_TMH in zip(cache.view(2, 16, 2, 16), (k_TMH, v_TMH), strict=True):
        assert torch.equal(stored[written], new_TMH[:9])
        untouched = [slot for slot in range(16) if slot not in written]
        assert stored[untouched].isnan().all()


def test_a_narrow_cache_gives_the_same_for_whole_prompts_and_chunks() -> None:
    spec = dataclasses.replace(PROBLEM.spec, kv_dtype=torch.bfloat16)
    q_TNH, k_TMH, v_TMH = (torch.randn(6, heads, 16, generator=torch.Generator().manual_seed(1)) for heads in (4, 2, 2))
    outputs = []
    for parts in ([(0, 0, 6)], [(0, 0, 4), (0, 4, 6)]):
        backend, results = SDPA(spec), []
        cache = torch.full(backend.kv_cache_shape(2), torch.nan, dtype=torch.bfloat16)
        for part in parts:
            batch = layout(dataclasses.replace(PROBLEM, num_padding=0), [torch.tensor([1, 0])], [part])
            tokens = slice(part[1], part[2])
            results.append(backend.forward(0, q_TNH[tokens], k_TMH[tokens], v_TMH[tokens], cache, backend.plan(batch)))
        outputs.append(torch.cat(results))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


def test_refuses_other_caches_of_8_bits() -> None:
    reason = SDPA.unsupported_reason(dataclasses.replace(PROBLEM.spec, kv_dtype=torch.float8_e5m2))
    assert reason is not None
    assert "float8_e5m2" in reason
    assert "kv_dtype=fp8" in reason


@given(st.lists(st.integers(1, 9000), max_size=60))
def test_groups_bound_padding_and_memory(lengths: list[int]) -> None:
    groups = _similar_lengths(list(range(len(lengths))), lengths, 16_384)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[row] for row in group)
        assert min(lengths[row] for row in group) >= _LENGTH_RATIO * longest
        assert len(group) == 1 or len(group) * longest <= 16_384


def test_fp8_saturates() -> None:
    spec = dataclasses.replace(PROBLEM.spec, kv_dtype=torch.float8_e4m3fn)
    backend = SDPA(spec)
    cache = torch.full(backend.kv_cache_shape(2), torch.nan, dtype=spec.kv_dtype)
    batch = layout(dataclasses.replace(PROBLEM, num_padding=0), [torch.tensor([1, 0])], [(0, 0, 6)])
    q_TNH, k_TMH, v_TMH = (torch.randn(6, heads, 16) for heads in (4, 2, 2))
    v_TMH[:] = 1000.0
    out_TNH = backend.forward(0, q_TNH, k_TMH, v_TMH, cache, backend.plan(batch))
    torch.testing.assert_close(out_TNH, torch.full_like(out_TNH, 448.0))
