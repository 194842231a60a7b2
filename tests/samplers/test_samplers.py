"""What all samplers promise: refusals, independence of batch mates, stable seeds, edge cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.interfaces.sampler import Sampler
from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.temperature import Temperature
from plugins.samplers.full import Full
from plugins.samplers.greedy import Greedy
from plugins.samplers.gumbel import Gumbel
from tests.samplers.distribution import history_of

CPU = torch.device("cpu")
V = 640


def sample(
    sampler: Sampler, logits_RV: torch.Tensor, params: list[SamplingParams], seeds: list[int], lengths: list[int]
) -> list[int]:
    """Row r has `lengths[r]` tokens so far, the last third of them output."""
    prompts = [[(token * 7) % V for token in range(max(1, length - length // 3))] for length in lengths]
    outputs = [[(token * 11) % V for token in range(length // 3)] for length in lengths]
    history = history_of(prompts, outputs)
    prepared = sampler.prepare(params)
    return sampler.sample(logits_RV.clone(), prepared, torch.tensor(seeds), torch.tensor(lengths), history).tolist()


def some_params(full: bool) -> st.SearchStrategy[SamplingParams]:
    keys: dict[str, st.SearchStrategy[Any]] = {"temperature": st.sampled_from([0.0, 1e-6, 0.6, 1.0, 2.0])}
    if full:
        keys |= {
            "top_k": st.sampled_from([0, 1, 5, 100, 10**9]),
            "top_p": st.sampled_from([1.0, 0.999, 0.9, 0.1]),
            "min_p": st.sampled_from([0.0, 0.01, 1.0]),
            "repetition_penalty": st.sampled_from([1.0, 1.1, 0.8]),
            "presence_penalty": st.sampled_from([0.0, 0.7]),
            "frequency_penalty": st.sampled_from([0.0, -0.3]),
            "logit_bias": st.sampled_from([{}, {3: 5.0, 600: -2.0}]),
        }
    return st.builds(SamplingParams, **keys)


@pytest.mark.parametrize("sampler", [Greedy(V, CPU), Gumbel(V, CPU), Full(V, CPU)], ids=lambda s: type(s).__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_token_does_not_depend_on_its_batch_mates(sampler: Sampler, data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(1, 7))
    params = [data.draw(some_params(full=isinstance(sampler, Full))) for _ in range(num_rows)]
    lengths = [data.draw(st.integers(1, 30)) for _ in range(num_rows)]
    seeds = [data.draw(st.integers(-(2**63), 2**63 - 1)) for _ in range(num_rows)]
    spread = data.draw(st.sampled_from([0.1, 3.0]))
    logits_RV = torch.randn(num_rows, V, generator=torch.Generator().manual_seed(num_rows)) * spread
    together = sample(sampler, logits_RV, params, seeds, lengths)
    alone = [sample(sampler, logits_RV[r : r + 1], [params[r]], [seeds[r]], [lengths[r]])[0] for r in range(num_rows)]
    assert together == alone


@pytest.mark.parametrize("sampler", [Gumbel(V, CPU), Full(V, CPU)], ids=lambda s: type(s).__name__)
def test_seeds_are_stable_across_releases(sampler: Sampler) -> None:
    """These tokens are part of recorded results: a change of the noise changes every run with a temperature."""
    logits_RV = torch.linspace(0, 3, V).repeat(6, 1)
    got = sample(sampler, logits_RV, [SamplingParams()] * 6, [0, 0, 1, 1, 99, -5], [1, 2, 1, 2, 1000, 7])
    assert got == [522, 484, 474, 527, 434, 54]


@pytest.mark.parametrize("sampler", [Gumbel(V, CPU), Full(V, CPU)], ids=lambda s: type(s).__name__)
def test_greedy_batches_use_no_noise(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_RV = torch.randn(3, V, generator=torch.Generator().manual_seed(1))
    mixed = [SamplingParams(temperature=0), SamplingParams(temperature=1), SamplingParams(temperature=0)]
    best = logits_RV.argmax(-1).tolist()
    assert sample(sampler, logits_RV, mixed, [1, 2, 3], [4, 5, 6])[::2] == best[::2]
    monkeypatch.delattr("framework.toolkit.samplers.noise.exponential_noise")
    assert sample(sampler, logits_RV, [SamplingParams(temperature=0)] * 3, [1, 2, 3], [4, 5, 6]) == best


def test_full_does_only_what_some_row_asks_for() -> None:
    prepared = Full(V, CPU).prepare(
        [SamplingParams(temperature=0.7), SamplingParams(temperature=0, top_k=3, top_p=0.5)]
    )
    assert prepared.bias is None
    assert prepared.penalties is None
    assert prepared.filters == []
    assert isinstance(prepared.temperature, Temperature)


@pytest.mark.parametrize("sampler", [Gumbel(V, CPU), Full(V, CPU)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-3, 1.0, 1e30])
def test_the_only_possible_token_is_taken(sampler: Sampler, temperature: float) -> None:
    logits_RV = torch.full((2, V), -torch.inf)
    logits_RV[0, 17] = -1e4
    logits_RV[1, V - 1] = 1e4
    assert sample(sampler, logits_RV, [SamplingParams(temperature=temperature)] * 2, [1, 2], [3, 4]) == [17, V - 1]


@pytest.mark.parametrize("values", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"logit_bias": {5: 1e4}}])
def test_extreme_filters_leave_the_best_token(values: dict[str, Any]) -> None:
    logits_RV = torch.randn(4, V, generator=torch.Generator().manual_seed(3)) * 0.01
    best = [5] * 4 if "logit_bias" in values else logits_RV.argmax(-1).tolist()
    for mates in (SamplingParams(), SamplingParams(**values)):  # with rows that ask for nothing, and without
        got = sample(Full(V, CPU), logits_RV, [SamplingParams(**values)] * 3 + [mates], [1, 2, 3, 4], [9, 9, 9, 9])
        assert got[:3] == best[:3]


def test_bias_and_penalties_reach_greedy_rows() -> None:
    logits_RV = torch.zeros(3, V)
    logits_RV[:, 9] = 2.0
    logits_RV[:, 11] = 1.5
    params = [
        SamplingParams(temperature=0, logit_bias={30: 2.5}),
        SamplingParams(temperature=0, repetition_penalty=2.0),  # 0, 7, 14 ... and 0, 11, 22 ... were seen
        SamplingParams(temperature=0, presence_penalty=1.0),
    ]
    logits_RV[1, 11] = 3.0
    assert sample(Full(V, CPU), logits_RV, params, [0, 0, 0], [9, 9, 9]) == [30, 9, 9]


def test_refusals_name_what_to_choose() -> None:
    assert Greedy.unsupported_reason(SamplingParams(temperature=0, top_k=4)) is None
    assert "gumbel" in str(Greedy.unsupported_reason(SamplingParams(temperature=0.5)))
    assert "full" in str(Greedy.unsupported_reason(SamplingParams(temperature=0, presence_penalty=1)))
    assert Gumbel.unsupported_reason(SamplingParams(temperature=0.5, seed=3)) is None
    reason = str(Gumbel.unsupported_reason(SamplingParams(top_k=4, min_p=0.1, logit_bias={1: 1.0})))
    assert all(word in reason for word in ("top_k", "min_p", "logit_bias", "full"))
    assert "top_p" not in reason
    assert "penalties" in str(Gumbel.unsupported_reason(SamplingParams(temperature=0, frequency_penalty=1)))
    assert Full.unsupported_reason(SamplingParams(top_k=4, repetition_penalty=2)) is None


def test_a_bias_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(ValueError, match=rf"logit_bias.* {V} .*{V}"):
        Full(V, CPU).prepare([SamplingParams(logit_bias={V: 1.0})])
