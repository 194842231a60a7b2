"""The plan of decode attention is compiled before the first step, whatever number of rows comes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framework.execution.kernels.cuda import decode_attention
from framework.execution.kernels.cuda.decode_attention import DecodeTile, PagedDecode


def test_no_number_of_rows_meets_a_plan_kernel_that_was_not_launched_at_start_or_by_one_row(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    paddings: list[int] = []

    class Launch:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *args, **options: paddings.append(options["ROWS_PAD"])

    monkeypatch.setattr(decode_attention, "_plan_kernel", Launch())
    decode = PagedDecode(
        num_heads=2, num_kv_heads=1, head_size=16, block_size=16, scale=1.0, max_num_rows=40,
        device=torch.device(device), tile=DecodeTile(32, 4, 2, 3),
    )  # fmt: skip

    def plan(num_rows: int) -> None:
        lengths_R = torch.ones(num_rows, dtype=torch.int32, device=device)
        decode.plan(lengths_R, lengths_R.unsqueeze(1))

    plan(1)  # the request that warms up
    known = set(paddings)
    for num_rows in range(1, 41):
        plan(num_rows)
    assert set(paddings) == known
