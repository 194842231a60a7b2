"""`allowed_token_ids`, `bad_words`, `min_tokens`: what can be drawn, and when it ends, against scipy and plain text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from framework.app.llm import LLM
from framework.engine.bans import through_bias
from framework.interfaces.sampling_params import SamplingParams
from framework.models.loading.byte_tokenizer import byte_tokenizer
from plugins.samplers.full import Full
from tests.samplers.distribution import MIN_P_VALUE, chi_square_p, draw

V, DRAWS = 50, 10_000
LOGITS_V = np.random.default_rng(5).normal(0, 4, V).astype(np.float32)
ALLOWED = tuple(int(token) for token in np.argsort(LOGITS_V)[[0, 3, 10, 20, 30]])


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("tiny", max_model_len=128, threads=1) as llm:
        yield llm


@pytest.mark.parametrize("temperature", [0.7, 1.0, 500.0])
@pytest.mark.parametrize("bias", [{}, {ALLOWED[1]: 3.0, 49: 100.0}], ids=["no bias", "bias"])
def test_allowed_tokens_are_drawn_as_from_a_softmax_over_them(temperature: float, bias: dict[int, float]) -> None:
    params = SamplingParams(allowed_token_ids=ALLOWED, temperature=temperature, logit_bias=bias)
    counts_V = draw(Full(V, torch.device("cpu")), LOGITS_V, through_bias(params, None), DRAWS)
    masked_V = np.full(V, -np.inf)
    masked_V[list(ALLOWED)] = [float(LOGITS_V[token]) + bias.get(token, 0) for token in ALLOWED]
    expected_V = softmax(masked_V / temperature)
    assert counts_V[expected_V == 0].sum() == 0
    assert chi_square_p(counts_V, expected_V) > MIN_P_VALUE


def test_allowed_tokens_and_a_filter() -> None:
    params = through_bias(SamplingParams(allowed_token_ids=ALLOWED, top_k=2), None)
    counts_V = draw(Full(V, torch.device("cpu")), LOGITS_V, params, 2000)
    assert set(np.flatnonzero(counts_V)) == set(sorted(ALLOWED, key=lambda token: -LOGITS_V[token])[:2])


def test_only_allowed_tokens_come_out_of_an_engine(llm: LLM) -> None:
    for temperature in (0.0, 1.0, 50.0):
        params = SamplingParams(allowed_token_ids=[65, 66, 300], temperature=temperature, max_tokens=24)
        assert set(llm.generate("x", params)[0].outputs[0].token_ids) <= {65, 66, 300}


@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_a_bad_word_never_comes(llm: LLM, temperature: float) -> None:
    (q,) = llm.get_tokenizer().encode("q")
    boosted: dict[str, Any] = {"temperature": temperature, "seed": 3, "max_tokens": 40, "ignore_eos": True}
    boosted["logit_bias"] = {q: 20.0}
    if temperature <= 1:
        assert q in llm.generate("y", SamplingParams(**boosted))[0].outputs[0].token_ids
    assert q not in llm.generate("y", SamplingParams(**boosted, bad_words=["q"]))[0].outputs[0].token_ids


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"bad_words": ["ab"]}, r"bad_words='ab' is the tokens \[\d+, \d+\] of this model; a word of one token"),
        ({"bad_words": ["a"], "allowed_token_ids": byte_tokenizer().encode("a")}, "bad_words ban every one"),
        ({"allowed_token_ids": [512]}, "allowed_token_ids names token id 512; this model's ids are 0 to 511"),
        ({"allowed_token_ids": [5], "logit_bias": {5: -1000}}, r"logit_bias={5: -1000} with allowed_token_ids must be"),
    ],
)
def test_what_cannot_be_served_is_named(llm: LLM, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        llm.generate("x", SamplingParams(**values))


def test_more_tokens_than_a_sampler_takes_are_named_as_they_were_given() -> None:
    with (
        LLM("tiny", sampler="gumbel", max_model_len=32) as llm,
        pytest.raises(ValueError, match="allowed_token_ids become logit_bias: sampler=gumbel has no"),
    ):
        llm.generate("x", SamplingParams(allowed_token_ids=[1, 2]))


def test_no_token_and_no_string_ends_it_before_min_tokens(llm: LLM) -> None:
    params: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
    free = llm.generate("stop", SamplingParams(**params))[0].outputs[0]
    assert len(set(free.token_ids[:4])) == 4
    early = {"stop_token_ids": (free.token_ids[2],)}
    assert len(llm.generate("stop", SamplingParams(**params, **early))[0].outputs[0].token_ids) == 3
    assert len(llm.generate("stop", SamplingParams(**params, **early, min_tokens=3))[0].outputs[0].token_ids) == 3
    kept = llm.generate("stop", SamplingParams(**params, **early, min_tokens=4))[0].outputs[0]
    assert kept.token_ids == free.token_ids[: len(kept.token_ids)]
    assert len(kept.token_ids) > 3
    stop = free.text[2]
    late = llm.generate("stop", SamplingParams(**params, stop=stop, min_tokens=12))[0].outputs[0]
    assert (late.token_ids, late.finish_reason) == (free.token_ids, "length")
    assert late.text == free.text


@pytest.mark.parametrize("min_tokens", range(1, 9))
def test_a_stop_string_counts_once_it_ends_at_min_tokens_or_later(llm: LLM, min_tokens: int) -> None:
    byte = byte_tokenizer()
    a, b = byte.encode("ab")
    params: dict[str, Any] = {"temperature": 0, "max_tokens": 10, "ignore_eos": True, "min_tokens": min_tokens}
    params["logit_bias"] = {a: 500.0, b: 500.0}
    free = llm.generate("z", SamplingParams(**params))[0].outputs[0]
    stop = free.text[1:3]
    ends = [end for end in range(2, 11) if end >= min_tokens and free.text[end - 2 : end] == stop]
    got = llm.generate("z", SamplingParams(**params, stop=[stop, "never in it"]))[0].outputs[0]
    assert len(got.token_ids) == (ends[0] if ends else 10)
    assert got.text == (free.text[: ends[0] - 2] if ends else free.text)


def test_a_stop_token_is_the_reason_and_shows_if_asked_for(llm: LLM) -> None:
    params: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
    free = llm.generate("stop", SamplingParams(**params))[0].outputs[0]
    params["stop_token_ids"] = [free.token_ids[3]]
    hidden = llm.generate("stop", SamplingParams(**params))[0].outputs[0]
    shown = llm.generate("stop", SamplingParams(**params, include_stop_str_in_output=True))[0].outputs[0]
    assert hidden.stop_reason == shown.stop_reason == free.token_ids[3]
    tokenizer = llm.get_tokenizer()
    assert hidden.text == tokenizer.decode(free.token_ids[:3])
    assert shown.text == tokenizer.decode(free.token_ids[:4])


def test_special_tokens_show_if_asked_for_and_end_tokens_are_no_reason(llm: LLM) -> None:
    tokenizer = llm.get_tokenizer()
    end, eos = tokenizer.encode("<|im_end|><|endoftext|>")
    params: dict[str, Any] = {"temperature": 0, "max_tokens": 2, "allowed_token_ids": [end]}
    assert llm.generate("a", SamplingParams(**params))[0].outputs[0].text == ""
    shown = SamplingParams(**params, skip_special_tokens=False)
    assert llm.generate("a", shown)[0].outputs[0].text == "<|im_end|>" * 2
    stopped = llm.generate("a", SamplingParams(**params, skip_special_tokens=False, stop="im_end"))[0].outputs[0]
    assert (stopped.text, stopped.stop_reason) == ("<|", "im_end")
    included = SamplingParams(**params, stop="<|im_end|>", include_stop_str_in_output=True)
    assert llm.generate("a", included)[0].outputs[0].stop_reason == "<|im_end|>"
    ended = llm.generate("a", SamplingParams(temperature=0, allowed_token_ids=[eos]))[0].outputs[0]
    assert (ended.token_ids, ended.finish_reason, ended.stop_reason) == ([eos], "stop", None)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 500.0])
def test_the_likeliest_word_is_never_drawn_if_it_is_bad(temperature: float) -> None:
    token = int(LOGITS_V.argmax())
    word = byte_tokenizer().decode([token])
    params = through_bias(SamplingParams(bad_words=word, temperature=temperature), byte_tokenizer())
    counts_V = draw(Full(V, torch.device("cpu")), LOGITS_V, params, DRAWS)
    assert counts_V[token] == 0
    assert counts_V.sum() == DRAWS
