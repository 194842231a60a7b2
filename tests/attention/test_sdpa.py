"""What the reference backend promises beyond the right numbers."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.attention.sdpa import _LENGTH_RATIO, SDPA, _pieces, _similar_lengths, _similar_shapes
from tests.attention.cases import Problem, Target, check, layout, problems

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


def on_gpu(spec: Any) -> SDPA:
    """The way of a GPU, on a CPU."""
    backend = SDPA(spec)
    backend._on_gpu = True
    return backend


@given(problems(Target("sdpa", dtypes=(torch.float32,))))
@settings(max_examples=25, deadline=None)
def test_pieces_that_attend_together_are_right(problem: Problem) -> None:
    with mock.patch("plugins.attention.sdpa._PIECE_TOKENS", 16):
        check(on_gpu, problem)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 3000)), max_size=40))
def test_pieces_cover_the_step_in_few_calls(rows: list[tuple[int, int]]) -> None:
    starts = list(itertools.accumulate((new for _, new in rows), initial=0))
    pieces = _pieces(starts, [context + new for context, new in rows])
    tokens = [token for piece in pieces for token in range(piece.first, piece.first + piece.num_new)]
    assert tokens == list(range(starts[-1]))
    for piece in pieces:
        last = piece.first + piece.num_new - 1 - starts[piece.row]  # of the row's new tokens
        assert piece.length == rows[piece.row][0] + last + 1
    groups = _similar_shapes(pieces, 1 << 17, 1 << 26)
    assert sorted((one.row, one.first) for group in groups for one in group) == [(p.row, p.first) for p in pieces]
    for group in groups:
        assert len(group) == 1 or len(group) * max(one.length for one in group) <= 1 << 17
        assert max(one.num_new for one in group) < 2 * min(one.num_new for one in group)


def test_rows_of_one_kind_attend_in_one_call() -> None:
    """What made a step of many rows slow on a GPU: some launches for each row and layer."""
    for new, context in ((1, 100), (64, 0), (64, 200)):
        rows = [(context + row, new) for row in range(100)]
        starts = [new * row for row in range(101)]
        assert len(_similar_shapes(_pieces(starts, [sum(row) for row in rows]), 1 << 17, 1 << 26)) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_does_not_depend_on_its_batch(dtype: torch.dtype) -> None:
    rows = ((0, 700), (300, 1), (900, 1), (0, 40), (130, 50))
    problem = Problem(Target("sdpa", device="cuda"), dtype, 16, 8, 128, 16, rows, num_padding=0, seed=3)
    together, alone = (outputs(problem, batches) for batches in ([[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]]))
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


def outputs(problem: Problem, batches: list[list[int]]) -> list[torch.Tensor]:
    """The result of each row, with the rows of a batch in one step."""
    backend, found = SDPA(problem.spec), {}
    blocks = torch.arange(sum(-(-sum(row) // problem.block_size) for row in problem.rows))
    tables = blocks.split([-(-sum(row) // problem.block_size) for row in problem.rows])
    generator = torch.Generator("cuda").manual_seed(1)
    cache = torch.randn(backend.kv_cache_shape(len(blocks)), generator=generator, device="cuda", dtype=problem.dtype)
    for batch in batches:
        batch = sorted(batch, key=lambda row: problem.rows[row][1] != 1)
        parts = [(row, problem.rows[row][0], sum(problem.rows[row])) for row in batch]
        qkv = []
        for heads in (16, 8, 8):
            per_row = []
            for row in batch:
                generator.manual_seed(10 * row + heads)
                per_row.append(torch.randn(problem.rows[row][1], heads, 128, generator=generator, device="cuda"))
            qkv.append(torch.cat(per_row).to(problem.dtype))
        out_TNH = backend.forward(0, *qkv, cache, backend.plan(layout(problem, tables, parts)))
        found |= dict(zip(batch, out_TNH.split([problem.rows[row][1] for row in batch]), strict=True))
    return [found[row] for row in range(len(problem.rows))]
