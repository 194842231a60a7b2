"""The two-level argmax is the argmax, and blocks of rows change nothing."""

from __future__ import annotations

import pytest
import torch

from framework.toolkit.samplers import selection


@pytest.mark.parametrize("vocab_size", [1, 7, 64, 320, 1000, 1024, 49152])
def test_argmax_rows_is_the_first_argmax(vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    for scores_RV in (
        torch.randn(5, vocab_size, generator=generator),
        torch.randint(0, 3, (5, vocab_size), generator=generator).float(),  # ties, within chunks and across them
        torch.full((5, vocab_size), -torch.inf),
        torch.randn(5, vocab_size + 3, generator=generator)[:, 3:],  # not contiguous
    ):
        assert torch.equal(selection.argmax_rows(scores_RV), (scores_RV == scores_RV.amax(-1, True)).int().argmax(-1))


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_RV = torch.randn(11, 640, generator=torch.Generator().manual_seed(0))
    seed_R, position_R, weight_R1 = torch.arange(11), torch.arange(11) * 3, (torch.arange(11) % 3 > 0).float()[:, None]
    whole_R = selection.gumbel_argmax(logits_RV.clone(), seed_R, position_R, weight_R1)
    monkeypatch.setattr(selection, "_CPU_BLOCK_TOKENS", 1500)
    assert torch.equal(whole_R, selection.gumbel_argmax(logits_RV.clone(), seed_R, position_R, weight_R1))
    assert torch.equal(whole_R[::3], logits_RV[::3].argmax(-1))
