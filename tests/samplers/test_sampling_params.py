"""Every parameter is checked when it is given, and what is accepted has the types that samplers count on."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.interfaces.sampling_params import SamplingParams
from framework.workloads.jsonl_line import request_from_line

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        *(
            ("temperature", bad, "a finite number, at least 0; pass 0 for greedy")
            for bad in (NAN, INF, "1", True, None)
        ),
        ("temperature", 10**400, "a finite number"),
        ("temperature", 1e39, "a finite number"),
        *(("top_k", bad, "an integer, at least 0; pass 0 to keep every token") for bad in (0.5, True, None, "3", 2.0)),
        ("top_k", -2, "at least 0"),
        ("top_k", 2**63, "at most 9223372036854775807"),
        *(("top_p", bad, "in (0, 1]; pass 1 to keep every token") for bad in (0, 1.5, NAN)),
        *(("min_p", bad, "in [0, 1]; pass 0 to keep every token") for bad in (-0.1, 1.5, NAN, False)),
        *(("repetition_penalty", bad, "above 0; pass 1 for none") for bad in (0, 0.0, -1, NAN)),
        *(("presence_penalty", bad, "in [-2, 2]; pass 0 for none") for bad in (-3, 2.5, NAN, False)),
        *(("frequency_penalty", bad, "in [-2, 2]; pass 0 for none") for bad in (-3, 2.5, "0")),
        *(("logprobs", bad, "an integer, at least -1; pass None for none") for bad in (2.5, True, "2")),
        ("logprobs", -2, "at least -1"),
        ("prompt_logprobs", -2, "at least -1"),
        *(("max_tokens", bad, "an integer, at least 1") for bad in (2.5, "3", True)),
        ("max_tokens", 0, "at least 1"),
        *(("seed", bad, "an integer, at least 0") for bad in (1.5, "x", True)),
        ("seed", -2, "at least 0"),
        ("seed", 2**64, "at most 18446744073709551615"),
        *(("logit_bias", {5: bad}, "of finite numbers, but") for bad in ("a", NAN, -INF, None, True)),
        *(("logit_bias", {bad: 1.0}, "of token ids, but") for bad in ("5", 1.5, -1, True)),
        *(("logit_bias", bad, "a mapping of token ids to numbers") for bad in ([5], 3)),
        *(("stop", bad, "of strings, none of them empty") for bad in ("", ("a", ""), ["a", 3])),
        *(("stop", bad, "a string or a list of strings") for bad in (3, b"a", {"a": 1})),
        *(("stop_token_ids", bad, "of token ids, but") for bad in ([1.5], [-1], ["a"], [True])),
        *(("stop_token_ids", bad, "a list of token ids") for bad in (3, "ab")),
        *(("ignore_eos", bad, "True or False") for bad in (1, None, "no")),
    ],
)
def test_a_bad_value_is_named_with_its_limit_and_a_remedy(name: str, value: object, says: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (looked at below)
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"{name}=")
    assert says in str(refused.value)
    assert "; pass " in str(refused.value)


NEUTRAL = {
    "stop": None,
    "stop_token_ids": None,
    "bad_words": None,
    "logit_bias": None,
    "allowed_token_ids": None,
    "seed": -1,
    "best_of": 1,
    "detokenize": True,
    "spaces_between_special_tokens": True,
    "logits_processors": None,
    "guided_decoding": None,
    "structured_outputs": None,
    "truncate_prompt_tokens": None,
    "extra_args": None,
    "flat_logprobs": False,
}
"""What vLLM takes and what asks for nothing."""


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_value_that_asks_for_nothing_is_taken(name: str) -> None:
    assert SamplingParams(**{name: NEUTRAL[name]}) == SamplingParams()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("best_of", True), ("best_of", 2), ("detokenize", False), ("detokenize", 1)]
)
def test_a_value_that_asks_for_something_is_not(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"does not serve {name}"):
        SamplingParams(**{name: value})


def test_a_number_of_thousands_of_digits_is_refused_like_any_other() -> None:
    with pytest.raises(ValueError, match="temperature=<int> must be a finite number"):
        SamplingParams(temperature=10**5000)


def test_numbers_of_numpy_and_lists_are_taken_and_made_plain() -> None:
    given = SamplingParams(
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        top_k=np.int64(3),  # type: ignore[arg-type]
        seed=np.uint64(2**64 - 1),  # type: ignore[arg-type]
        stop=["a", "b"],  # type: ignore[arg-type]
        stop_token_ids=np.array([1, 2]),  # type: ignore[arg-type]
        logit_bias={np.int64(3): np.float32(1)},  # type: ignore[dict-item]
    )
    assert given == SamplingParams(
        temperature=0.5, top_k=3, seed=2**64 - 1, stop=("a", "b"), stop_token_ids=(1, 2), logit_bias={3: 1.0}
    )
    assert type(given.temperature) is float
    assert {type(value) for value in (given.top_k, given.seed, *given.stop_token_ids, *given.logit_bias)} == {int}


def test_a_bias_that_is_changed_later_changes_nothing() -> None:
    biases = {3: 1.0}
    given = SamplingParams(logit_bias=biases)
    biases[4] = NAN
    assert given.logit_bias == {3: 1.0}


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**62, 2**66),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers() | st.text(max_size=2) | st.floats(), max_size=3),
    st.dictionaries(st.integers(-2, 9) | st.text(max_size=2), st.floats() | st.none() | st.booleans(), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([field.name for field in dataclasses.fields(SamplingParams)]), ANYTHING)
def test_any_value_is_refused_or_fits_where_it_goes(name: str, value: object) -> None:
    try:
        params = SamplingParams(**{name: value})  # type: ignore[arg-type]
    except ValueError:
        return
    for real in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert np.isfinite(np.float32(getattr(params, real)))
    for whole in ("top_k", "max_tokens", "logprobs", "prompt_logprobs"):
        assert getattr(params, whole) is None or np.int64(getattr(params, whole)) >= -("logprobs" in whole)
    assert params.seed is None or np.uint64(params.seed) == params.seed
    assert all(np.isfinite(np.float32(bias)) for bias in params.logit_bias.values())
    np.array([*params.logit_bias, *params.stop_token_ids], dtype=np.int64)
    assert all(params.stop)
    hash((params.stop, params.stop_token_ids))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([field.name for field in dataclasses.fields(SamplingParams)]), ANYTHING)
def test_a_line_of_a_file_is_judged_as_the_python_api_does(name: str, value: object) -> None:
    if value is None or isinstance(value, dict):  # null is "not given" in a file, and keys are strings there
        return
    try:
        want, error = SamplingParams(**{name: value}), ""  # type: ignore[arg-type]
    except ValueError as refusal:
        want, error = SamplingParams(), str(refusal)
    try:
        line = json.dumps({"prompt": "a", name: value}, ensure_ascii=False)
        line.encode()
    except (UnicodeEncodeError, ValueError):
        return
    request = request_from_line(line, "f:1", {})
    assert request.params == want
    assert request.error == (f"f:1: {error}" if error else "")
