"""Filters and penalties against the logits processors of `transformers`, on rows that mix all parameters."""

from __future__ import annotations

import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.filters import MinP, TopK
from framework.toolkit.samplers.logit_bias import LogitBias
from framework.toolkit.samplers.nucleus import TopP
from framework.toolkit.samplers.penalties import Penalties
from tests.samplers.distribution import history_of

CPU = torch.device("cpu")
VOCAB_SIZES = (40, 1000)


def random_logits(rows: int, vocab_size: int) -> torch.Tensor:
    return torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * 3


def test_filters_in_the_order_min_p_top_k_top_p() -> None:
    for vocab_size in VOCAB_SIZES:
        params = [
            SamplingParams(top_k=k, top_p=p, min_p=m)
            for k in (0, 1, 7, 39)
            for p in (1.0, 0.99, 0.5, 0.01)
            for m in (0.0, 1e-3, 0.3, 1.0)
        ]
        logits_RV = random_logits(len(params), vocab_size)
        wanted = []
        for row, p in enumerate(params):
            warpers = LogitsProcessorList()
            warpers += [MinPLogitsWarper(p.min_p)] if p.min_p else []
            warpers += [TopKLogitsWarper(p.top_k)] if p.top_k else []
            warpers += [TopPLogitsWarper(p.top_p)] if p.top_p < 1 else []
            wanted.append(warpers(None, logits_RV[row : row + 1].clone()))
        for one in (MinP.of(params, CPU), TopK.of(params, vocab_size, CPU), TopP.of(params, CPU)):
            assert one is not None
            one.apply(logits_RV)
        torch.testing.assert_close(logits_RV, torch.cat(wanted), rtol=0, atol=0)


def test_a_filter_of_every_row_equals_it_on_some_rows() -> None:
    logits_RV = random_logits(4, 1000)
    params = [SamplingParams(top_k=3 + row, top_p=0.9, min_p=0.001) for row in range(4)]
    for of in (MinP.of, lambda p, device: TopK.of(p, 1000, device), TopP.of):
        every, some = logits_RV.clone(), logits_RV.clone()
        for filtered_RV, rows in ((every, params), (some, [*params[:2], SamplingParams(), params[3]])):
            one = of(rows, CPU)
            assert one is not None
            one.apply(filtered_RV)
        assert torch.equal(every[[0, 1, 3]], some[[0, 1, 3]])
        assert torch.equal(some[2], logits_RV[2])


def test_top_k_and_top_p_keep_ties() -> None:
    logits_RV = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    for one in (TopK.of([SamplingParams(top_k=2)], 5, CPU), TopP.of([SamplingParams(top_p=0.5)], CPU)):
        assert one is not None
        filtered_RV = logits_RV.clone()
        one.apply(filtered_RV)
        assert filtered_RV.isfinite().tolist() == [[True, True, True, True, False]]


def test_repetition_penalty() -> None:
    prompts, outputs = [[1, 2, 2], [5], [0, 39], [7, 7, 7, 7]], [[2, 9], [], [3] * 9, [0]]
    params = [SamplingParams(repetition_penalty=value) for value in (1.2, 0.5, 1.0, 3.0)]
    logits_RV = random_logits(4, 40)
    wanted_RV = logits_RV.clone()
    for row in (0, 1, 3):
        ids = torch.tensor([prompts[row] + outputs[row]])
        penalty = params[row].repetition_penalty
        wanted_RV[row] = RepetitionPenaltyLogitsProcessor(penalty)(ids, wanted_RV[row : row + 1])[0]
    penalties = Penalties.of(params, CPU)
    assert penalties is not None
    penalties.apply(logits_RV, history_of(prompts, outputs))
    assert torch.equal(logits_RV, wanted_RV)


def test_presence_and_frequency_count_output_only() -> None:
    params = [
        SamplingParams(presence_penalty=0.5, frequency_penalty=0.25),
        SamplingParams(),
        SamplingParams(presence_penalty=-1),
    ]
    logits_RV = torch.zeros(3, 6)
    penalties = Penalties.of(params, CPU)
    assert penalties is not None
    penalties.apply(logits_RV, history_of([[0, 0], [1], [2]], [[1, 1, 0], [1], []]))
    assert logits_RV.tolist() == [[-0.75, -1.0, 0, 0, 0, 0], [0] * 6, [0] * 6]


def test_bias_is_added_and_checked() -> None:
    logits_RV = torch.zeros(2, 4)
    bias = LogitBias.of([SamplingParams(logit_bias={1: 2.0, 3: -1.0}), SamplingParams(logit_bias={1: 0.5})], 4, CPU)
    assert bias is not None
    bias.apply(logits_RV)
    assert logits_RV.tolist() == [[0, 2.0, 0, -1.0], [0, 0.5, 0, 0]]
