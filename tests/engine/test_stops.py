"""Stop strings, also those that name tokens which the text leaves out, against a search of the decoded text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.app.llm import LLM
from framework.engine.intake import Intake
from framework.engine.output import TextTracker
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.models.loading.byte_tokenizer import byte_tokenizer

BYTES = byte_tokenizer()
SPECIAL = {text: token_id for token_id, text in BYTES.special_texts.items()}
START, END = "<|im_start|>", "<|im_end|>"
A, B = BYTES.encode("ab")


def tracker(*stop: str) -> TextTracker:
    intake = Intake(vocab_size=300, max_model_len=99, tokenizer=BYTES)
    spec = RequestSpec(params=SamplingParams(stop=stop), prompt_token_ids=[1], want_text=True)
    text = intake.build(0, spec, arrival_s=0.0).text
    assert text is not None
    return text


def run(stop: tuple[str, ...], ids: list[int]) -> tuple[int, str, str]:
    """Tokens up to the stop, the text, and all that was shown of it on the way."""
    text, shown, number = tracker(*stop), "", 0
    for number, token_id in enumerate(ids, 1):  # noqa: B007
        ended = text.push(token_id)
        shown += text.take_delta()
        if ended:
            break
    text.finish()
    return number, text.text, shown + text.take_delta()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", START, END]), min_size=1, max_size=3).map("".join), min_size=1, max_size=2
    ),
    st.lists(st.sampled_from([A, B, SPECIAL[START], SPECIAL[END]]), min_size=1, max_size=12),
)
def test_any_stop_string_ends_where_the_decoded_text_first_holds_it(stop: list[str], ids: list[int]) -> None:
    special = [text for text in stop if "<" in text]
    plain = [text for text in stop if "<" not in text]
    expected = len(ids), BYTES.decode(ids)
    for number in range(1, len(ids) + 1):
        whole, text = (BYTES.decode(ids[:number], skip_special_tokens=skip) for skip in (False, True))
        places = [whole.index(one) for one in special if one in whole]
        texts = [whole[:place].replace(START, "").replace(END, "") for place in places]
        texts += [text[: text.index(one)] for one in plain if one in text]
        if texts:
            expected = number, min(texts, key=len)
            break
    got = run(tuple(stop), ids)
    assert got[:2] == expected
    assert got[2] == got[1]


def test_half_a_character_before_a_special_stop_is_shown_and_after_a_plain_one_is_not() -> None:
    half = BYTES.encode("é")[0]
    assert run((END,), [A, half, SPECIAL[END], B]) == (3, "a\N{REPLACEMENT CHARACTER}", "a\N{REPLACEMENT CHARACTER}")
    assert run(("b",), [A, B, half]) == (2, "a", "a")
    assert run((END + "b",), [A, SPECIAL[END], B, half]) == (3, "a", "a")


@pytest.fixture(scope="module")
def llm():
    with LLM("tiny", max_model_len=64, threads=1) as llm:
        yield llm


def test_a_model_that_samples_a_special_token_stops_there(llm: LLM) -> None:
    biased = {"temperature": 0, "max_tokens": 6, "ignore_eos": True, "logit_bias": {SPECIAL[END]: 1e4}}
    free = llm.generate("x", SamplingParams(**biased))[0].outputs[0]
    assert (free.finish_reason, free.token_ids, free.text) == ("length", [SPECIAL[END]] * 6, "")
    ended = llm.generate("x", SamplingParams(**biased, stop=(END,)))[0].outputs[0]
    assert (ended.finish_reason, ended.token_ids, ended.text) == ("stop", [SPECIAL[END]], "")
    twice = llm.generate("x", SamplingParams(**biased, stop=(END + END,)))[0].outputs[0]
    assert (twice.finish_reason, len(twice.token_ids)) == ("stop", 2)


def test_a_stream_without_a_tokenizer_yields_every_token(tmp_path: Path) -> None:
    config = {"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64}
    config |= {"max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0}
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3ForCausalLM"]}))
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    with LLM(str(tmp_path), overrides=["model.weights=random"], max_model_len=32, threads=1) as llm:
        assert llm.tokenizer is None
        want = llm.generate([1, 2, 3], params)[0].outputs[0]
        chunks = list(llm.stream([1, 2, 3], params))
    assert [chunk.token_ids for chunk in chunks] == [[token] for token in want.token_ids]
    assert {chunk.text for chunk in chunks} == {""}
    assert [chunk.finish_reason for chunk in chunks] == [None] * 4 + ["length"]
