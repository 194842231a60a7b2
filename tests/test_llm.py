"""The Python API: what comes back, what is refused, and that engines come and go cleanly."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from framework.app.llm import LLM
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("tiny", max_num_seqs=4, max_model_len=64, attention="sdpa") as llm:
        yield llm


def test_one_prompt_or_many_in_order(llm: LLM) -> None:
    alone = [llm.generate(text, GREEDY)[0].outputs[0].token_ids for text in ("ab", "cde", "f")]
    together = llm.generate(["ab", "cde", "f"], GREEDY)
    assert [output.outputs[0].token_ids for output in together] == alone
    assert [output.prompt for output in together] == ["ab", "cde", "f"]
    assert all(output.outputs[0].finish_reason == "length" for output in together)


def test_params_for_each_prompt(llm: LLM) -> None:
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (1, 5)]
    assert [len(output.outputs[0].token_ids) for output in llm.generate(["a", "b"], params)] == [1, 5]
    with pytest.raises(ValueError, match="1 SamplingParams for 2 prompts"):
        llm.generate(["a", "b"], params[:1])


def test_a_bad_request_does_not_stop_the_others(llm: LLM) -> None:
    good, long, empty, out_of_range, fraction = llm.generate(["ok", [1] * 64, [], [512], [1, 2.5]], GREEDY)
    assert good.error is None
    assert len(good.outputs[0].token_ids) == 8
    assert "64 tokens" in str(long.error)
    assert "max_model_len=64" in str(long.error)
    assert "empty" in str(empty.error)
    assert "512" in str(out_of_range.error)
    assert "0 to 511" in str(out_of_range.error)
    assert "prompt token id 2.5 is not an integer" in str(fraction.error)


def test_text_that_is_not_unicode_does_not_stop_the_others(llm: LLM) -> None:
    good, bad, number, nothing = llm.generate(["ok", "a\ud800", 5.0, None], GREEDY)  # type: ignore[list-item]
    assert len(good.outputs[0].token_ids) == 8
    assert r"holds '\ud800' at character 1, which is half of a surrogate pair" in str(bad.error)
    assert "prompt 5.0 is neither text nor a list of token ids" in str(number.error)
    assert "prompt None is neither" in str(nothing.error)
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        next(llm.stream("a\udfff", GREEDY))


def test_a_conversation_that_is_refused_does_not_stop_the_others(llm: LLM) -> None:
    good, bad = llm.chat([[{"role": "user", "content": "hi"}], [{"role": "user", "content": "\ud800"}]], GREEDY)
    assert len(good.outputs[0].token_ids) == 8
    assert "half of a surrogate pair" in str(bad.error)


def test_if_all_are_bad_the_reason_is_raised(llm: LLM) -> None:
    with pytest.raises(ValueError, match="empty"):
        llm.generate([[]], GREEDY)


def test_text_and_ids_together_are_refused(llm: LLM) -> None:
    with pytest.raises(ValueError, match="both"):
        llm.engine.add_request(RequestSpec(prompt="a", prompt_token_ids=[1], params=GREEDY))
    with pytest.raises(ValueError, match="neither"):
        llm.engine.add_request(RequestSpec(params=GREEDY))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"top_p": 0}, r"top_p=0 must be in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"stop": ("",)}, "empty"),
    ],
)
def test_bad_params(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingParams(**values)  # type: ignore[arg-type]


def test_a_sampler_refuses_what_it_cannot_do() -> None:
    with LLM("tiny", sampler="greedy", max_model_len=32) as llm:
        with pytest.raises(ValueError, match=r"temperature=0\.7"):
            llm.generate("a", SamplingParams(temperature=0.7))
        assert llm.generate("a", GREEDY)[0].outputs


def test_stream_equals_generate(llm: LLM) -> None:
    expected = llm.generate("hello", GREEDY)[0].outputs[0]
    chunks = list(llm.stream("hello", GREEDY))
    assert "".join(chunk.text for chunk in chunks) == expected.text
    assert [token for chunk in chunks for token in chunk.token_ids] == expected.token_ids
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == "length"


def test_closing_a_stream_aborts_its_request(llm: LLM) -> None:
    stream = llm.stream("hello", SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    next(stream)
    stream.close()
    while llm.engine.has_work:
        llm.engine.step()
    assert llm.engine.cache.num_free == len(llm.engine.cache.blocks)


def test_two_streams_at_once(llm: LLM) -> None:
    expected = [llm.generate(text, GREEDY)[0].outputs[0].token_ids for text in ("left", "right")]
    streams = [llm.stream(text, GREEDY) for text in ("left", "right")]
    got: list[list[int]] = [[], []]
    for pair in zip(*streams, strict=True):
        for tokens, chunk in zip(got, pair, strict=True):
            tokens.extend(chunk.token_ids)
    assert got == expected


def test_stop_string_cuts_the_text_and_stop_token_does_not_show(llm: LLM) -> None:
    free = llm.generate("stop", GREEDY)[0].outputs[0]
    middle = free.text[len(free.text) // 2]
    cut = llm.generate("stop", SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, stop=(middle,)))[0].outputs[
        0
    ]
    assert cut.finish_reason == "stop"
    assert cut.text == free.text[: free.text.index(middle)]
    token = free.token_ids[3]
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, stop_token_ids=(token,))
    ended = llm.generate("stop", params)[0].outputs[0]
    assert ended.finish_reason == "stop"
    assert ended.token_ids == free.token_ids[: free.token_ids.index(token) + 1]
    assert len(ended.text) < len(free.text)


def test_logprobs_are_those_of_the_sampled_tokens(llm: LLM) -> None:
    output = llm.generate("p", SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, logprobs=3))[0].outputs[0]
    assert output.logprobs is not None
    assert [entry.token_id for entry in output.logprobs] == output.token_ids
    for entry in output.logprobs:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token_id, entry.logprob)  # greedy takes the most likely one
        assert entry.logprob < 0
    assert llm.generate("p", GREEDY)[0].outputs[0].logprobs is None


def test_sampled_tokens_do_not_depend_on_the_batch(llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, top_p=0.9, seed=5, max_tokens=12, ignore_eos=True)
    alone = llm.generate("x", params)[0].outputs[0].token_ids
    assert llm.generate(["y", "x", "z"], params)[1].outputs[0].token_ids == alone
    other = SamplingParams(temperature=1.0, top_p=0.9, seed=6, max_tokens=12, ignore_eos=True)
    assert llm.generate("x", other)[0].outputs[0].token_ids != alone


def test_ends_at_max_model_len(llm: LLM) -> None:
    output = llm.generate([[7] * 60], SamplingParams(temperature=0, max_tokens=100, ignore_eos=True))[0].outputs[0]
    assert len(output.token_ids) == 4
    assert output.finish_reason == "length"


def test_a_policy_that_needs_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="eviction=belady needs to know all requests beforehand"):
        LLM("tiny", eviction="belady")


def test_the_shortest_length_that_is_allowed_and_the_end() -> None:
    llm = LLM("tiny", max_model_len=2)
    output = llm.generate([[5]], GREEDY)[0].outputs[0]
    assert (len(output.token_ids), output.finish_reason) == (1, "length")
    llm.close()
    with pytest.raises(ValueError, match="this LLM was closed; build another one"):
        llm.generate([[5]], GREEDY)


def test_nothing_asked_is_nothing_answered(llm: LLM) -> None:
    assert llm.generate([]) == llm.chat([]) == []


def test_twice_in_one_process_and_no_thread_left() -> None:
    before = threading.active_count()
    results = []
    for _ in range(2):
        with LLM("tiny", max_model_len=32) as llm:
            results.append(llm.generate("again", GREEDY)[0].outputs[0].token_ids)
    assert results[0] == results[1]
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"scheduler": "nonesuch"}, "chunked_prefill"),
        ({"max_num_seq": 8}, "max_num_seqs"),
        ({"block_size": 3}, "block_size=3"),
        ({"scheduler": {"name": "chunked_prefill", "chunk": 1}}, "max_chunk_tokens"),
        ({"num_blocks": 2, "max_model_len": 64}, "num_blocks"),
    ],
)
def test_bad_keywords_name_the_choices(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LLM("tiny", **keywords)


def test_keywords_reach_the_configuration() -> None:
    with LLM("tiny", scheduler={"name": "chunked_prefill", "max_chunk_tokens": 5}, overlap=0, max_model_len=32) as llm:
        assert llm.cfg.scheduler.max_chunk_tokens == 5
        assert llm.cfg.engine.overlap == 0
        assert llm.engine.scheduler.max_chunk_tokens == 5  # type: ignore[attr-defined]
