"""Chunks whose keys are cut into spans, against explicit loops in float64, over memory that is NaN where unwritten."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framework.conformance.checks.attention_cases import oracle
from framework.execution.kernels.cuda import prefill_attention
from framework.execution.kernels.cuda.prefill_attention import PagedPrefill, PrefillTile

NUM_HEADS, NUM_KV_HEADS, HEAD_SIZE, BLOCK = 4, 2, 16, 16


@pytest.mark.parametrize(
    ("rows", "is_cut"),
    [
        pytest.param([(100, 5)], True, id="one short chunk"),
        pytest.param([(70, 3), (0, 7)], True, id="a short prompt beside it"),
        pytest.param([(40, 1), (90, 4), (17, 2)], True, id="a row that is left out"),
        pytest.param([(0, 6)], False, id="nothing to cut"),
        pytest.param([(10, 34)], False, id="tiles enough"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_short_chunks(
    device: str, monkeypatch: pytest.MonkeyPatch, rows: list, is_cut: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(prefill_attention, "num_processors", lambda device: 4)  # so that few tiles are enough
    generator = torch.Generator().manual_seed(len(rows))
    lengths, news = [sum(row) for row in rows], [new for _, new in rows]
    attend = PagedPrefill(
        num_heads=NUM_HEADS, num_kv_heads=NUM_KV_HEADS, head_size=HEAD_SIZE, block_size=BLOCK, scale=0.3,
        max_num_rows=4, max_num_tokens=64, dtype=dtype, kv_dtype=dtype, device=torch.device(device),
        tile=PrefillTile(16, 16, 4, 2),
    )  # fmt: skip
    attend._partial.fill_(torch.nan)
    attend._lse.fill_(torch.nan)
    blocks = [-(-length // BLOCK) for length in lengths]
    cache = torch.full((2, sum(blocks), BLOCK, NUM_KV_HEADS, HEAD_SIZE), torch.nan, dtype=dtype)
    table = torch.full((len(rows), max(blocks)), 2**31 - 1, dtype=torch.int32)
    order, kv = torch.randperm(sum(blocks), generator=generator).int(), []
    for row, (length, count) in enumerate(zip(lengths, blocks, strict=True)):
        table[row, :count], order = order[:count], order[count:]
        kv.append(torch.randn(2, length, NUM_KV_HEADS, HEAD_SIZE, generator=generator).to(dtype))
        for position in range(length):
            cache[:, table[row, position // BLOCK], position % BLOCK] = kv[-1][:, position]
    q = torch.randn(sum(news), NUM_HEADS, HEAD_SIZE, generator=generator).to(dtype)
    starts = torch.tensor([0, *torch.tensor(news).cumsum(0).tolist()], dtype=torch.int32, device=device)
    wanted = torch.tensor([0 if new == 1 else new for new in news], dtype=torch.int32, device=device)
    out = torch.full_like(q, torch.nan, device=device)
    lens = torch.tensor(lengths, dtype=torch.int32, device=device)
    plan = attend.plan(starts, lens, table.to(device), wanted, num_tokens=len(q), few_rows=True)
    for _ in range(2):  # as layer after layer does, with one plan
        attend(q.to(device), cache.to(device), plan, out)
    num_items, num_tiles = plan.count_2.tolist()
    assert (num_items > num_tiles) is is_cut
    tolerance = 2e-5 if dtype == torch.float32 else 4e-3
    for row, new in enumerate(news):
        got = out[starts[row] : starts[row + 1]].cpu()
        if new == 1:
            assert got.isnan().all()
            continue
        k, v = kv[row].double().numpy()
        want = torch.from_numpy(oracle(q[starts[row] : starts[row + 1]].double().numpy(), k, v, 0.3))
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


def test_every_window_is_compiled_ahead(device: str) -> None:
    asked: list[int | None] = []

    class Noting(PagedPrefill):
        def __call__(self, *arguments: Any, window: int | None = None) -> None:
            asked.append(arguments[4] if len(arguments) > 4 else window)

    attend = Noting(
        num_heads=NUM_HEADS, num_kv_heads=NUM_KV_HEADS, head_size=HEAD_SIZE, block_size=BLOCK, scale=0.3,
        max_num_rows=4, max_num_tokens=1, dtype=torch.float32, kv_dtype=torch.float32, device=torch.device(device),
        tile=PrefillTile(16, 16, 4, 2), windows=(None, 40, 40),
    )  # fmt: skip
    if device == "cpu":  # where nothing is compiled by itself
        attend._compile(1, torch.float32, torch.float32, torch.device(device), (None, 40, 40))
    assert asked == [None, 40]
