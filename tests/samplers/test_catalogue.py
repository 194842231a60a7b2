"""`typical`, `min_p`, `eta` and `top_k_top_p`: kept tokens against other code, draws against exact distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import EtaLogitsWarper, MinPLogitsWarper, TypicalLogitsWarper

from framework.interfaces.sampler import Sampler
from framework.interfaces.sampling_params import SamplingParams
from framework.toolkit.samplers.filters import TopK
from framework.toolkit.samplers.nucleus import TopP
from framework.toolkit.samplers.thresholds import ban_below_top_k, ban_below_top_p
from plugins.samplers.eta import Eta
from plugins.samplers.full import Full
from plugins.samplers.greedy import Greedy
from plugins.samplers.gumbel import Gumbel
from plugins.samplers.min_p import MinP
from plugins.samplers.top_k_top_p import TopKTopP
from plugins.samplers.typical import Typical
from tests.samplers.distribution import MIN_P_VALUE, chi_square_p, draw, exact_probs, history_of

V, DRAWS = 50, 20_000
CPU = torch.device("cpu")
LOGITS_V = np.random.default_rng(5).normal(0, 2, V).astype(np.float32)
SAMPLERS = [Typical, MinP, Eta, TopKTopP]


def random_logits(rows: int, vocab_size: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * spread


def masked_softmax(logits_V: torch.Tensor) -> np.ndarray:
    x = logits_V.double().numpy()
    e = np.exp(x - x.max())
    return e / e.sum()


def sample(
    sampler: Sampler, logits_RV: torch.Tensor, params: list[SamplingParams], seeds: list[int], positions: list[int]
) -> list[int]:
    history = history_of([[0]] * len(params), [[]] * len(params))
    seed_R, position_R = torch.tensor(seeds), torch.tensor(positions)
    return sampler.sample(logits_RV.clone(), sampler.prepare(params), seed_R, position_R, history).tolist()


@pytest.mark.parametrize("vocab_size", [40, 1000])
@pytest.mark.parametrize("mass", [0.01, 0.2, 0.5, 0.95, 0.999])
def test_typical_keeps_what_transformers_keeps(vocab_size: int, mass: float) -> None:
    for spread in (0.3, 1.0, 5.0):
        logits_RV = random_logits(20, vocab_size, spread)
        wanted_RV = TypicalLogitsWarper(mass)(None, logits_RV.double()).isinf()
        assert torch.equal(Typical(vocab_size, CPU, mass=mass).banned(logits_RV), wanted_RV)


@pytest.mark.parametrize("vocab_size", [40, 1000])
@pytest.mark.parametrize("epsilon", [1e-5, 6e-4, 0.05, 0.9])
def test_eta_keeps_what_transformers_keeps(vocab_size: int, epsilon: float) -> None:
    for spread in (0.01, 1.0, 5.0):
        logits_RV = random_logits(20, vocab_size, spread)
        wanted_RV = EtaLogitsWarper(epsilon)(None, logits_RV.clone())
        assert torch.equal(Eta(vocab_size, CPU, epsilon=epsilon).banned(logits_RV), wanted_RV.isinf())


def test_eta_keeps_the_best_token_of_a_flat_row() -> None:
    """There the floor is the probability of every token, but for its rounding."""
    assert not Eta(49, CPU, epsilon=1 - 1e-9).banned(torch.zeros(1, 49)).all()


@pytest.mark.parametrize(("default", "asked"), [(0.1, 0.0), (0.0, 0.0), (0.1, 0.02), (0.02, 0.4), (0.3, 1.0)])
def test_min_p_draws_from_what_transformers_keeps(default: float, asked: float) -> None:
    """What the request asks for wins; what it leaves at 0 is the plugin's."""
    share = asked or default
    logits_1V = torch.from_numpy(LOGITS_V)[None] / 1.5
    wanted_V = (MinPLogitsWarper(share)(None, logits_1V) if share else logits_1V)[0]
    params = SamplingParams(temperature=1.5, min_p=asked)
    counts_V = draw(MinP(V, CPU, min_p=default), LOGITS_V, params, DRAWS)
    assert chi_square_p(counts_V, masked_softmax(wanted_V)) > MIN_P_VALUE


@pytest.mark.parametrize("temperature", [0.7, 1.6])
@pytest.mark.parametrize(
    ("sampler", "warper"),
    [
        (Typical(V, CPU, mass=0.3), TypicalLogitsWarper(0.3)),
        (Typical(V, CPU), TypicalLogitsWarper(0.95)),
        (Eta(V, CPU, epsilon=0.02), EtaLogitsWarper(0.02)),
        (Eta(V, CPU, epsilon=0.2), EtaLogitsWarper(0.2)),
    ],
    ids=["typical .3", "typical", "eta .02", "eta .2"],
)
def test_draws_follow_the_kept_tokens(sampler: Sampler, warper: Any, temperature: float) -> None:
    wanted_1V = warper(None, torch.from_numpy(LOGITS_V)[None] / temperature)
    assert wanted_1V.isinf().any()
    params = SamplingParams(temperature=temperature)
    assert chi_square_p(draw(sampler, LOGITS_V, params, DRAWS), masked_softmax(wanted_1V[0])) > MIN_P_VALUE
    stated_V = sampler.probabilities(LOGITS_V.astype(np.float64), params)
    np.testing.assert_allclose(stated_V, masked_softmax(wanted_1V[0]), rtol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"top_k": 1},
        {"top_k": 5, "temperature": 2.0},
        {"top_k": 10_000},
        {"top_p": 0.5},
        {"top_p": 0.95, "temperature": 1.7},
        {"top_p": 1e-6},
        {"top_k": 12, "top_p": 0.6, "temperature": 1.5},
        {"top_k": 3, "top_p": 0.99},
    ],
    ids=str,
)
def test_top_k_top_p_draws_from_the_exact_distribution(values: dict[str, Any]) -> None:
    params = SamplingParams(**values)
    counts_V = draw(TopKTopP(V, CPU), LOGITS_V, params, DRAWS)
    assert chi_square_p(counts_V, exact_probs(LOGITS_V, params)) > MIN_P_VALUE


@pytest.mark.parametrize(
    ("plugin", "values"),
    [
        (Greedy, {"temperature": 0.0}),
        (Typical, {"temperature": 0.0}),
        (Gumbel, {"temperature": 0.7}),
        (MinP, {"min_p": 0.2, "temperature": 1.4}),
        (TopKTopP, {"top_k": 7, "top_p": 0.8}),
        (TopKTopP, {"top_k": 10_000, "top_p": 0.999}),
        (Full, {"min_p": 0.01, "top_k": 12, "top_p": 0.6, "temperature": 2.0}),
    ],
    ids=str,
)
def test_the_stated_distribution_is_the_exact_one(plugin: type[Sampler], values: dict[str, Any]) -> None:
    logits_V, params = LOGITS_V.astype(np.float64), SamplingParams(**values)
    exact_V = exact_probs(logits_V, params) if params.temperature else np.arange(V) == logits_V.argmax()
    np.testing.assert_allclose(plugin(V, CPU).probabilities(logits_V, params), exact_V, rtol=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocab_size=st.sampled_from([1, 2, 17, 600, 1500]),
    spread=st.sampled_from([0.0, 1e-4, 1.0, 4.0, 60.0]),
    distinct=st.sampled_from([2, 5, 40, None]),
    num_banned=st.integers(0, 3),
    params=st.builds(
        SamplingParams,
        top_k=st.sampled_from([0, 1, 2, 7, 300, 10**9]),
        top_p=st.sampled_from([1.0, 0.9999, 0.9, 0.4, 1e-4]),
    ),
)
def test_top_k_top_p_keeps_what_full_keeps(
    seed: int, vocab_size: int, spread: float, distinct: int | None, num_banned: int, params: SamplingParams
) -> None:
    """On random logits, with ties (few distinct values, -0.0 and 0.0 among them) and with tokens banned before."""
    generator = torch.Generator().manual_seed(seed)
    values_V = torch.randn(vocab_size, generator=generator)
    if distinct:
        levels = torch.cat([torch.tensor([0.0, -0.0]), torch.randn(distinct, generator=generator)])
        values_V = levels[torch.randint(0, len(levels), (vocab_size,), generator=generator)]
    logits_RV = (values_V * spread).repeat(2, 1)
    logits_RV[:, 1 : 1 + num_banned] = -torch.inf
    wanted_RV = logits_RV.clone()
    for one in (TopK.of([params] * 2, vocab_size, CPU), TopP.of([params] * 2, CPU)):
        if one is not None:
            one.apply(wanted_RV)
    k = min(params.top_k or vocab_size, vocab_size)
    p = params.top_p if params.top_p < 1 else np.inf
    ban_below_top_k(logits_RV, torch.tensor([[k]] * 2))
    ban_below_top_p(logits_RV, torch.tensor([[p]] * 2))
    assert torch.equal(logits_RV.isinf(), wanted_RV.isinf())
    assert torch.equal(logits_RV, wanted_RV)


def test_top_k_top_p_gives_the_tokens_of_full() -> None:
    """The noise is the same and so is the distribution, hence the tokens, whatever the rows ask for."""
    params = [
        SamplingParams(temperature=t, top_k=k, top_p=p)
        for t in (0.0, 1e-6, 0.7, 1.3)
        for k in (0, 1, 40)
        for p in (1.0, 0.8)
    ]
    logits_RV, seeds, positions = random_logits(len(params), 640), [*range(len(params))], [7] * len(params)
    got = sample(TopKTopP(640, CPU), logits_RV, params, seeds, positions)
    assert got == sample(Full(640, CPU), logits_RV, params, seeds, positions)


@pytest.mark.parametrize("plugin", SAMPLERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_token_does_not_depend_on_its_batch_mates(plugin: type[Sampler], data: st.DataObject) -> None:
    keys: dict[str, Any] = {"temperature": st.sampled_from([0.0, 1e-6, 0.6, 1.0, 2.0])}
    if plugin is MinP:
        keys["min_p"] = st.sampled_from([0.0, 0.01, 1.0])
    if plugin is TopKTopP:
        keys |= {"top_k": st.sampled_from([0, 1, 9, 10**9]), "top_p": st.sampled_from([1.0, 0.9, 0.1])}
    num_rows = data.draw(st.integers(1, 7))
    params = [data.draw(st.builds(SamplingParams, **keys)) for _ in range(num_rows)]
    seeds = [data.draw(st.integers(-(2**63), 2**63 - 1)) for _ in range(num_rows)]
    positions = [data.draw(st.integers(1, 2**40)) for _ in range(num_rows)]
    logits_RV = random_logits(num_rows, 640, data.draw(st.sampled_from([0.1, 3.0])))
    sampler = plugin(640, CPU)
    together = sample(sampler, logits_RV, params, seeds, positions)
    alone = [sample(sampler, logits_RV[r : r + 1], [params[r]], [seeds[r]], [positions[r]])[0] for r in range(num_rows)]
    assert together == alone
    greedy = [r for r in range(num_rows) if params[r].temperature < 1e-5]
    assert [together[r] for r in greedy] == logits_RV.argmax(-1)[greedy].tolist()


@pytest.mark.parametrize("plugin", SAMPLERS)
@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-3, 1.0, 1e30])
def test_the_only_possible_token_is_taken(plugin: type[Sampler], temperature: float) -> None:
    logits_RV = torch.full((2, 64), -torch.inf)
    logits_RV[0, 17], logits_RV[1, 63] = -1e4, 1e4
    assert sample(plugin(64, CPU), logits_RV, [SamplingParams(temperature=temperature)] * 2, [1, 2], [3, 4]) == [17, 63]


def test_a_greedy_row_takes_an_atypical_token() -> None:
    """Two thirds of the probability lie on ten equal tokens, so the best one, above them, is not typical."""
    logits_RV = torch.zeros(2, 11)
    logits_RV[:, 4] = 1.6
    assert Typical(11, CPU, mass=0.3).banned(logits_RV)[0, 4]
    mixed = [SamplingParams(temperature=0), SamplingParams()]
    tokens = {tuple(sample(Typical(11, CPU, mass=0.3), logits_RV, mixed, [1, seed], [2, 2])) for seed in range(20)}
    assert {greedy for greedy, _ in tokens} == {4}
    assert 4 not in {drawn for _, drawn in tokens}


@pytest.mark.parametrize("plugin", SAMPLERS)
def test_refusals_name_what_is_missing(plugin: type[Sampler]) -> None:
    honoured = {MinP: {"min_p"}, TopKTopP: {"top_k", "top_p"}}.get(plugin, set())
    for values in ({"top_k": 4}, {"top_p": 0.5}, {"min_p": 0.1}):
        (name,) = values
        reason = plugin.unsupported_reason(SamplingParams(**values))
        assert (reason is None) == (name in honoured)
        assert reason is None or (name in reason and "sampler=full" in reason)
        assert plugin.unsupported_reason(SamplingParams(temperature=0, **values)) is None
    assert "penalties" in str(plugin.unsupported_reason(SamplingParams(temperature=0, presence_penalty=1)))
    assert "logit_bias" in str(plugin.unsupported_reason(SamplingParams(temperature=0, logit_bias={1: 1.0})))


@pytest.mark.parametrize(
    ("plugin", "values", "message"),
    [
        (Typical, {"mass": 0.0}, r"sampler\.mass=0\.0 .*\(0, 1\)"),
        (Typical, {"mass": 1.0}, "sampler=gumbel"),
        (Eta, {"epsilon": 1.0}, r"sampler\.epsilon=1\.0 .*\(0, 1\)"),
        (MinP, {"min_p": 1.1}, r"sampler\.min_p=1\.1 .*\[0, 1\]"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(plugin: Any, values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plugin(V, CPU, **values)


@pytest.mark.parametrize("plugin", SAMPLERS)
def test_sampling_never_waits_for_the_device(plugin: type[Sampler]) -> None:
    """PyTorch can trace the whole call on tensors that have no values, which a graph needs too."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    sampler = plugin(64, CPU)
    params = [SamplingParams(), SamplingParams(temperature=0)]
    history = history_of([[0]] * 2, [[]] * 2)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        logits_RV = torch.empty(2, 64)
        seed_R, position_R = torch.empty(2, dtype=torch.int64), torch.empty(2, dtype=torch.int64)
        tokens_R = sampler.sample(logits_RV, sampler.prepare(params), seed_R, position_R, history)
    assert (tokens_R.shape, tokens_R.dtype) == ((2,), torch.int64)
