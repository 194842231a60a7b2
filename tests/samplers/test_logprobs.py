"""Log-probabilities of the raw logits, for rows that ask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from framework.execution.step.logprobs import DeviceLogprobs, token_logprobs


def test_equals_float64_log_softmax() -> None:
    logits_RV = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * 4
    x = logits_RV.double().numpy()
    exact_RV = x - np.log(np.exp(x).sum(-1, keepdims=True))
    got = token_logprobs(logits_RV, torch.tensor([3, 29, 0, 7]), [2, None, 0, 100])
    assert got[1] is None
    for row, token, count in ((0, 3, 2), (2, 0, 0), (3, 7, 30)):
        entry = got[row]
        assert entry is not None
        assert entry.token_id == token
        assert entry.logprob == pytest.approx(exact_RV[row, token], abs=1e-5)
        order = np.argsort(-exact_RV[row])[:count]
        assert [token for token, _ in entry.top] == order.tolist()
        np.testing.assert_allclose([value for _, value in entry.top], exact_RV[row][order], atol=1e-5)


def test_rows_that_do_not_ask_cost_nothing() -> None:
    logits_RV = torch.full((2, 5), torch.nan)
    assert DeviceLogprobs.of(logits_RV, torch.tensor([0, 1]), [None, None]) is None
    assert token_logprobs(logits_RV, torch.tensor([0, 1]), [None, None]) == [None, None]
