"""The sampling kernels against plain PyTorch: tokens, distributions, thresholds, log-probabilities, NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.execution.kernels.cuda.sampling.finite import not_finite_rows
from framework.execution.kernels.cuda.sampling.gumbel import gumbel_argmax, gumbel_best
from framework.execution.kernels.cuda.sampling.thresholds import least_kept
from framework.execution.kernels.cuda.sampling.top_logprobs import top_logprobs
from framework.execution.step.logprobs import PackedLogprobs, counts_of, token_logprobs
from framework.interfaces.sampler import NOT_FINITE, TokenHistory
from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.row_params import RowParams
from plugins.samplers.full import Full
from tests.samplers.distribution import MIN_P_VALUE, chi_square_p, exact_probs, history_of
from tests.samplers.kernels import as_on_a_gpu

CPU = torch.device("cpu")
V = 640


def with_kernels(sampler: Full) -> Full:
    as_on_a_gpu(sampler)
    return sampler


PROMPTS, OUTPUTS = [[3, 3, 8, 14, 600], [1], [5, 6] * 9], [[8, 20, 20, 20], [], [5, 7, 5, 639]]
BIAS = {3: 5.0, 600: -2.0, 20: 1.5}


def on(device: str, history: TokenHistory) -> TokenHistory:
    return TokenHistory(
        token_ids_SL=history.token_ids_SL.to(device),
        num_prompt_S=history.num_prompt_S.to(device),
        slot_R=history.slot_R.to(device),
        num_tokens_R=history.num_tokens_R.to(device),
    )


def sampled(
    sampler: Full, logits_RV: torch.Tensor, params: list[SamplingParams], history: TokenHistory, device: str
) -> list[int]:
    """Call a sampler as the runner does. Seeds and positions follow from a row's number."""
    seed_R = torch.arange(len(params), device=device) * 7919 - 3
    logits_RV = logits_RV.to(device)
    if not sampler.takes_model_dtype:
        logits_RV = logits_RV.float().clone()
    prepared = sampler.prepare(params)
    history = on(device, history)
    position_R = history.num_tokens_R
    token_R = sampler.sample(logits_RV, prepared, seed_R, position_R, history)
    if any(map(sampler.redraws, params)):
        token_R = sampler.redraw(logits_RV, prepared, seed_R, position_R, history, token_R)
    return token_R.tolist()


def some_params() -> st.SearchStrategy[SamplingParams]:
    return st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
        top_k=st.sampled_from([0, 0, 1, 5, 100, 10**9]),
        top_p=st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.1]),
        min_p=st.sampled_from([0.0, 0.0, 0.01, 1.0]),
        repetition_penalty=st.sampled_from([1.0, 1.1, 0.8]),
        presence_penalty=st.sampled_from([0.0, 0.7]),
        frequency_penalty=st.sampled_from([0.0, -0.3]),
        logit_bias=st.sampled_from([{}, BIAS]),
    )


@settings(max_examples=6, deadline=None)
@given(
    params=st.lists(some_params(), min_size=1, max_size=7),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_the_tokens_of_plain_pytorch(
    params: list[SamplingParams], dtype: torch.dtype, spread: float, seed: int
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = len(params)
    generator = torch.Generator().manual_seed(seed)
    logits_RV = (torch.randn(rows, V + 5, generator=generator) * spread).to(dtype)[:, :V]  # strided, bf16 has ties
    picked = [(row + seed) % 3 for row in range(rows)]
    history = history_of([PROMPTS[i] for i in picked], [OUTPUTS[i] for i in picked])
    history.token_ids_SL[history.token_ids_SL == 2**31 - 1] = 0
    want = sampled(Full(V, CPU), logits_RV, params, history, "cpu")
    got = sampled(with_kernels(Full(V, torch.device(device))), logits_RV, params, history, device)
    assert got == want


def test_draws_follow_the_masked_softmax(device: str) -> None:
    """Few draws where kernels are interpreted: that their tokens are those of plain PyTorch says more."""
    params = SamplingParams(top_k=4, top_p=0.9, min_p=0.01, temperature=1.4, repetition_penalty=1.5, logit_bias={1: 1})
    draws = 20_000 if device == "cuda" else 24
    logits_V = np.array([1.2, 0.3, -0.5, 1.0, 0.9, -0.1], dtype=np.float32)
    history = history_of([[3]] * draws, [[0, 1]] * draws)
    sampler = with_kernels(Full(6, torch.device(device)))
    counts_V = np.bincount(
        sampled(sampler, torch.tensor(logits_V).repeat(draws, 1), [params] * draws, history, device), minlength=6
    )
    probs_V = exact_probs(logits_V, params, [3], [0, 1])
    assert chi_square_p(counts_V, probs_V) > MIN_P_VALUE
    assert chi_square_p(counts_V, probs_V[::-1].copy()) < MIN_P_VALUE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.01, 20.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (4000, 1.0), (0, 0.9), (50, 0.9)])
def test_thresholds_keep_what_a_sort_keeps(
    device: str, dtype: torch.dtype, spread: float, top_k: int, top_p: float
) -> None:
    """More than one block of tokens, and equal logits at the threshold."""
    logits_RV = (torch.randn(2, 5000, generator=torch.Generator().manual_seed(3)) * spread).to(dtype)
    params = [SamplingParams(temperature=0.8, top_k=top_k, top_p=top_p), SamplingParams(temperature=0.8)]
    rows = RowParams.of(params, 5000, torch.device(device), None)
    none = torch.zeros(2, 5000, device=device)
    least, without = least_kept(logits_RV.to(device), none, rows).tolist()
    assert without == -np.inf
    x = logits_RV[0].double()
    order = x.sort(descending=True).values
    last = order[top_k - 1] if top_k else order[-1]
    if top_p < 1:
        kept = order[order >= last]
        total = ((kept - kept[0]) / 0.8).softmax(0).cumsum(0)
        last = kept[min(int((total < np.float32(top_p)).sum()), len(kept) - 1)]
    hopeless = order[0] - 26 * 0.8  # below this no token ever wins, so none is searched
    assert [i for i in range(5000) if x[i] >= max(last, hopeless)] == [i for i in range(5000) if x[i] >= least]


def test_rows_that_ask_for_nothing_keep_their_token(device: str) -> None:
    """Also a row that is not finite, whatever it asks for."""
    sampler = with_kernels(Full(V, torch.device(device)))
    params = [SamplingParams(temperature=0.7), SamplingParams(top_k=3), SamplingParams(top_p=0.2)]
    given_R = torch.tensor([-7, 5, NOT_FINITE], device=device)
    logits_RV = torch.randn(3, V, generator=torch.Generator().manual_seed(1)).to(device)
    history = on(device, history_of([[1]] * 3, [[]] * 3))
    seeds = torch.arange(3, device=device)
    got = sampler.redraw(logits_RV, sampler.prepare(params), seeds, seeds, history, given_R).tolist()
    assert (got[0], got[2]) == (-7, NOT_FINITE)
    assert 0 <= got[1] < V
    assert [sampler.redraws(one) for one in params] == [False, True, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 1024])
def test_rows_that_are_not_finite_are_found(device: str, value: float, at: int) -> None:
    logits_RV = torch.randn(6, 2510, generator=torch.Generator().manual_seed(at))[:, :2500].to(device)
    logits_RV[[1, 4], at] = value
    plain = torch.ones(6, device=device), (torch.arange(6, device=device) % 2).float()  # greedy and drawn
    seeds = torch.arange(6, device=device)
    got = gumbel_argmax(logits_RV, *plain, seeds, seeds).tolist()
    assert [token == NOT_FINITE for token in got] == [False, True, False, False, True, False]
    assert not_finite_rows(logits_RV).tolist() == [False, True, False, False, True, False]
    score_R, token_R = gumbel_best(logits_RV, *plain, seeds, seeds, 77)
    assert score_R.isinf().tolist() == (token_R == NOT_FINITE).tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize("vocab_size", [7, 1024, 2500])
def test_log_probabilities_are_those_of_a_softmax(device: str, vocab_size: int) -> None:
    logits_RV = torch.randn(5, vocab_size, generator=torch.Generator().manual_seed(2)).to(device) * 4
    token_R = torch.tensor([3, 0, vocab_size - 1, 5, NOT_FINITE], device=device)
    num_top = [5, None, 20, 0, 2]
    counts = counts_of(num_top, vocab_size)
    count_R = torch.tensor(counts, dtype=torch.int32, device=device)
    packed = PackedLogprobs.of(top_logprobs(logits_RV, token_R, count_R), token_R, counts)
    if device == "cuda":
        torch.cuda.synchronize()
    got, want = packed.to_host(), token_logprobs(logits_RV, token_R, num_top)
    assert got[1] is want[1] is None
    for one, other in list(zip(got, want, strict=True))[:1] + list(zip(got, want, strict=True))[2:4]:
        assert one is not None
        assert other is not None
        assert one.token_id == other.token_id
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
        np.testing.assert_allclose(
            [one.logprob, *(v for _, v in one.top)], [other.logprob, *(v for _, v in other.top)], atol=2e-5
        )


def test_equal_logits_come_with_the_lowest_id_first(device: str) -> None:
    logits_RV = torch.zeros(1, 2500, device=device)
    logits_RV[0, [2400, 30, 1100]] = 2.0
    packed = top_logprobs(
        logits_RV, torch.tensor([0], device=device), torch.tensor([5], dtype=torch.int32, device=device)
    )
    assert packed[0, 1:6].tolist() == [30, 1100, 2400, 0, 1]
