"""The record tells how long torch.compile took."""

from __future__ import annotations

import torch

from framework.execution.rank.compiled import compile_seconds


def test_compile_seconds_counts_what_was_compiled_here() -> None:
    before = compile_seconds()
    doubled = torch.compile(lambda x: x * 2, backend="eager")
    assert doubled(torch.ones(3)).tolist() == [2, 2, 2]
    first = compile_seconds()
    assert 0 < first - before < 60
    doubled(torch.ones(3))
    assert compile_seconds() == first
