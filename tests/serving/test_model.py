"""A server with a model: text, stop strings, and log-probabilities of answers and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from framework import LLM, SamplingParams
from tests.serving.server import served


def check_prompt_logprobs(client: openai.OpenAI, asked: dict[str, Any]) -> None:
    """Echoed or in a list of their own, streamed or whole, they are those that the Python API gives."""
    with LLM("tiny", device="cpu", dtype="float32") as llm:
        ids = llm.get_tokenizer().encode("hello")
        exact = llm.generate([ids], SamplingParams(prompt_logprobs=2, max_tokens=1))[0].prompt_logprobs
    assert exact is not None
    values = [None if entry is None else pytest.approx(entry.logprob, abs=1e-3) for entry in exact]
    echoed = client.completions.create(**asked, echo=True, logprobs=2).choices[0]
    assert echoed.logprobs is not None
    assert echoed.logprobs.token_logprobs is not None
    assert len(echoed.logprobs.token_logprobs) == len(ids) + 12
    assert echoed.logprobs.token_logprobs[: len(ids)] == values
    assert "".join(echoed.logprobs.tokens or ()) == echoed.text
    assert (echoed.logprobs.text_offset or ())[:3] == [0, 1, 2]
    for token, logprob, top in zip(*(getattr(echoed.logprobs, name)[1:] for name in NAMES), strict=True):
        assert 1 <= len(top) <= 3, "some tokens have the same text"
        assert top[token] >= logprob
    assert [max(top.values()) for top in (echoed.logprobs.top_logprobs or ())[1 : len(ids)]] == [
        pytest.approx(max(one.logprob for one in entry.values()), abs=1e-3) for entry in exact[1:] if entry
    ]
    scored = client.completions.create(**asked | {"max_tokens": 0}, echo=True, logprobs=1)
    assert scored.choices[0].text == "hello"
    assert scored.choices[0].logprobs is not None
    assert scored.choices[0].logprobs.token_logprobs == values
    assert scored.usage is not None
    assert scored.usage.completion_tokens == 0
    pieces = [piece.choices[0] for piece in client.completions.create(**asked, echo=True, logprobs=2, stream=True)]
    assert "".join(piece.text for piece in pieces) == echoed.text
    joined = {
        name: [one for piece in pieces if piece.logprobs for one in getattr(piece.logprobs, name)] for name in NAMES
    }
    assert joined["tokens"] == echoed.logprobs.tokens
    assert joined["token_logprobs"] == [None, *map(pytest.approx, echoed.logprobs.token_logprobs[1:])]  # type: ignore[arg-type]
    two = client.completions.create(**asked, extra_body={"prompt_logprobs": 1, "n": 2}).to_dict()["choices"]
    own = [next(iter(entry.values())) for entry in two[1]["prompt_logprobs"][1:]]  # type: ignore[index]
    assert [one["logprob"] for one in own] == values[1:]
    assert [one["rank"] for one in own] == [next(iter(entry.values())).rank for entry in exact[1:] if entry]
    chat: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    answer = client.chat.completions.create(**chat, extra_body={"prompt_logprobs": 0})
    assert len(answer.to_dict()["prompt_logprobs"]) == answer.usage.prompt_tokens  # type: ignore[arg-type,union-attr]
    with pytest.raises(openai.BadRequestError, match="prompt_logprobs cannot be streamed"):
        client.chat.completions.create(**chat, stream=True, extra_body={"prompt_logprobs": 1})


NAMES = ("tokens", "token_logprobs", "top_logprobs")


def test_a_real_engine_stops_at_a_stop_string_and_gives_log_probabilities(tmp_path: Path) -> None:
    with served(tmp_path / "cell", "executor.device=cpu", "executor.dtype=float32") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        asked: dict[str, Any] = {"model": "tiny", "prompt": "hello", "max_tokens": 12, "temperature": 0}
        free = client.completions.create(**asked, logprobs=2).choices[0]
        assert free.logprobs is not None
        assert len(free.logprobs.token_logprobs or ()) == 12
        streamed = client.completions.create(**asked, stream=True)
        assert "".join(piece.choices[0].text for piece in streamed) == free.text
        stop = free.text[4:6]
        cut = client.completions.create(**asked, stop=stop).choices[0]
        assert cut.finish_reason == "stop"
        assert cut.text == free.text[: free.text.index(stop)]
        further = {"include_stop_str_in_output": True}
        shown = client.completions.create(**asked, stop=stop, extra_body=further).choices[0]
        assert shown.text == free.text[: free.text.index(stop) + len(stop)]
        late = client.completions.create(**asked, stop=free.text[1:3], extra_body={"min_tokens": 12}).choices[0]
        assert (late.text, late.finish_reason) == (free.text, "length")
        ids = httpx.post(f"{server.url}/tokenize", json={"prompt": "xyz"}).json()["tokens"]
        only = {"allowed_token_ids": ids, "bad_words": ["y"], "stop_token_ids": ids[:1], "min_tokens": 3}
        limited = client.completions.create(**asked | {"temperature": 1}, extra_body=only, seed=1).choices[0]
        assert set(limited.text) <= {"x", "z"}
        assert limited.finish_reason == "stop" or len(limited.text) == 12
        marks = {"allowed_token_ids": [257], "skip_special_tokens": False}
        assert client.completions.create(**asked, extra_body=marks).choices[0].text == "<|im_end|>" * 12
        with pytest.raises(openai.BadRequestError, match=r"min_tokens=13 must be at most max_tokens=12"):
            client.completions.create(**asked, extra_body={"min_tokens": 13})
        with pytest.raises(openai.BadRequestError, match="a word of one token can be banned"):
            client.completions.create(**asked, extra_body={"bad_words": ["long word"]})
        check_prompt_logprobs(client, asked)
        chat = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            max_tokens=3,
            logprobs=True,
            top_logprobs=2,
        ).choices[0]
        assert chat.logprobs is not None
        assert [len(token.top_logprobs) for token in chat.logprobs.content or ()] == [2, 2, 2]
        assert server.end() == 0
