"""The server from outside: the `openai` client, bad input, clients that go, and what is left as a record."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from framework import __main__ as command
from framework.records.record import read_record
from tests.serving.server import Server, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    slow = ("cost_model=constant", "cost_model.step_s=0.003")  # or answers would come in one piece
    with served(tmp_path_factory.mktemp("served"), "executor=simulated", "serving.read_limit_s=3", *slow) as one:
        yield one


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def status(server: Server) -> dict[str, Any]:
    values: dict[str, Any] = httpx.get(f"{server.url}/status").json()
    return values


def idle(server: Server) -> None:
    """Return when no request runs or waits any more."""
    for _ in range(100):
        time.sleep(0.1)
        now = status(server)
        if not now.get("running") and not now.get("waiting"):
            return
    raise AssertionError(now)


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=7, n=2, seed=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.finish_reason == "length" for choice in answer.choices)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 14
    assert answer.choices[0].message.role == "assistant"


def test_a_stream_brings_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "hello", "max_tokens": 30, "temperature": 0}
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    usage = pieces[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 30)
    assert pieces[-2].choices[0].finish_reason == "length"
    assert len(pieces) > 5, "it streams"
    text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert text


def test_usage_with_every_chunk(client: openai.OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=8,
        stream=True,
        stream_options=options,  # type: ignore[arg-type]
    )
    counts = [piece.usage.completion_tokens for piece in stream if piece.usage is not None]
    assert counts == sorted(counts)
    assert counts[-1] == 8


def test_several_prompts_echo_and_token_ids(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=["ab", "cde"], max_tokens=2, echo=True)
    assert [choice.text[:2] for choice in answer.choices] == ["ab", "cd"]
    ids = httpx.post(f"{client.base_url.copy_with(path='/tokenize')}", json={"prompt": "ab"}).json()["tokens"]
    assert client.completions.create(model="tiny", prompt=ids, max_tokens=2).usage.prompt_tokens == 2  # type: ignore[union-attr]
    text = httpx.post(f"{client.base_url.copy_with(path='/detokenize')}", json={"tokens": ids}).json()["prompt"]
    assert text == "ab"
    assert httpx.get(f"{client.base_url.copy_with(path='/tokenizer_info')}").json()["eos_token"] == "<|endoftext|>"


@pytest.mark.parametrize("endpoint", ["completions", "chat/completions"])
def test_the_protocol_of_vllm_bench_serve(server: Server, endpoint: str) -> None:
    """Bodies and events as its `openai` and `openai-chat` backends send and read them."""
    asked: dict[str, Any] = {"model": "tiny", "stream": True, "stream_options": {"include_usage": True}}
    asked |= {"ignore_eos": True, "temperature": 0.0}
    if endpoint == "completions":
        asked |= {"prompt": "hello", "repetition_penalty": 1.0, "max_tokens": 9, "logprobs": None}
    else:
        content = [{"type": "text", "text": "hello"}]
        asked |= {"messages": [{"role": "user", "content": content}], "max_completion_tokens": 9, "stop": None}
    headers = {"Authorization": "Bearer none", "x-request-id": "bench-0"}
    times, tokens, usage = [], 0, {}
    with httpx.stream("POST", f"{server.url}/v1/{endpoint}", json=asked, headers=headers) as answer:
        assert answer.status_code == 200
        for line in filter(None, answer.iter_lines()):
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                break
            event = json.loads(data)
            if event["choices"]:
                times.append(time.perf_counter())
                choice = event["choices"][0]
                tokens += bool(choice["text"] if endpoint == "completions" else choice["delta"].get("content"))
            elif event["usage"]:
                usage = event["usage"]
    assert usage["completion_tokens"] == 9
    assert 0 < tokens <= 9
    assert times == sorted(times)


def test_null_is_not_given(server: Server) -> None:
    nulls = dict.fromkeys(("temperature", "top_p", "n", "max_tokens", "stream", "echo", "seed", "user", "suffix"))
    answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": "hello", **nulls})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 16


def test_models_version_health(client: openai.OpenAI, server: Server) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert httpx.get(f"{server.url}/version").json()["engine"] == "ServeLab"
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_metrics_are_read_by_the_library_that_scrapes_them(client: openai.OpenAI, server: Server) -> None:
    client.completions.create(model="tiny", prompt="hello", max_tokens=3)
    time.sleep(1.2)  # two rounds of the engine's report
    text = httpx.get(f"{server.url}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["vllm:generation_tokens"].samples[0].value >= 3
    assert families["vllm:num_requests_running"].samples[0].value == 0
    assert families["vllm:time_to_first_token_seconds"].samples


BAD = [
    ("not json", b"{", "not JSON"),
    ("deep", b"[" * 100_000 + b"]" * 100_000, "body"),
    ("a list", b"[]", "JSON object"),
    ("a huge number", b'{"prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}", "body is not JSON"),
    ("a lone surrogate", b'{"prompt": "\\ud800"}', "prompt"),
    ("unknown field", b'{"prompt": "a", "best_of": 3}', "best_of is not served"),
    ("wrong type", b'{"prompt": "a", "max_tokens": "3"}', "max_tokens"),
    ("wrong type inside", b'{"prompt": [1, "a"]}', "prompt"),
    ("no prompt", b"{}", "prompt"),
    ("empty prompt", b'{"prompt": ""}', "prompt is empty"),
    ("NaN", b'{"prompt": "a", "temperature": NaN}', "temperature"),
    ("a limit", b'{"prompt": "a", "top_p": 1.5}', "top_p=1.5"),
    ("an id out of range", b'{"prompt": [999999999]}', "999999999"),
    ("bias of no token", b'{"prompt": "a", "logit_bias": {"x": 1}}', "logit_bias"),
    ("echo with logprobs", b'{"prompt": "a", "echo": true, "logprobs": 1}', "a simulated engine computes no logits"),
    ("too long", b'{"prompt": "' + b"a" * 5000 + b'"}', "max_model_len"),
]
BAD_CHATS = [
    ("no messages", {"messages": []}, "messages=\\[\\]"),
    ("no role", {"messages": [{"content": "a"}]}, "messages.0.role"),
    ("an image", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
    ("empty content", {"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
    ("a number", {"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
    ("tools of a wrong type", {"messages": [{"role": "user", "content": "a"}], "tools": 3}, "tools"),
    ("top_logprobs alone", {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 3}, "logprobs=true"),
]


@pytest.mark.parametrize(("body", "message"), [pytest.param(b, m, id=name) for name, b, m in BAD])
def test_a_bad_body_is_refused_with_the_path_of_the_field(server: Server, body: bytes, message: str) -> None:
    answer = httpx.post(f"{server.url}/v1/completions", content=body)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(("body", "message"), [pytest.param(b, m, id=name) for name, b, m in BAD_CHATS])
def test_a_bad_chat_is_refused(client: openai.OpenAI, body: dict[str, Any], message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.chat.completions.create(model="tiny", **body)


def test_another_model_path_or_method_is_not_found(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-4' is not served here"):
        client.completions.create(model="gpt-4", prompt="a")
    assert httpx.get(f"{server.url}/v1/images").status_code == 404
    assert httpx.get(f"{server.url}/v1/completions").status_code == 405


def test_a_slow_client_is_cut_off(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n")  # and never the rest of the headers
        assert slow.recv(100) == b""
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b"408" in slow.recv(1000)
    assert time.monotonic() - started < 30


def test_a_client_that_goes_ends_its_request(server: Server) -> None:
    before = status(server)["ended"].get("abort", 0)
    body = {"prompt": "hello", "max_tokens": 4000, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
        next(answer.iter_bytes())
    idle(server)
    time.sleep(0.6)
    assert status(server)["ended"]["abort"] == before + 1


def test_many_disconnects_leave_nothing_behind(server: Server) -> None:
    descriptors = server.num_descriptors()
    rng = random.Random(1)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        body: dict[str, Any] = {"prompt": f"hello {number}", "max_tokens": 40, "stream": number % 3 > 0}
        if number % 20 == 0:
            body["top_p"] = 7
        try:
            answer = await client.post("/v1/completions", json=body, timeout=rng.choice((0.01, 0.05, 10)))
            assert answer.status_code == (400 if number % 20 == 0 else 200), answer.text
        except httpx.TimeoutException:
            pass

    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=server.url, limits=limits) as client:
            await asyncio.gather(*(one(client, number) for number in range(300)))

    asyncio.run(all_of_them())
    idle(server)
    assert status(server)["kv_usage"] == 0
    assert server.num_descriptors() <= descriptors + 1


def test_the_status_page_needs_no_network(server: Server) -> None:
    page = httpx.get(server.url).text
    assert "ServeLab" in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_key_guards_everything_but_health(tmp_path: Path) -> None:
    with served(tmp_path / "cell", SERVELAB_API_KEY="secret-of-the-test") as server:
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/status").status_code == 401
        wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        right = openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret-of-the-test")
        assert right.models.list().data
        assert server.end() == 0
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secret-of-the-test" not in path.read_bytes()


def test_a_served_session_is_a_record_and_a_trace(tmp_path: Path) -> None:
    with served(tmp_path / "cell") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        shared = "a prefix that is shared " * 4
        for number in range(3):
            client.completions.create(model="tiny", prompt=f"{shared}{number}", max_tokens=5, user="someone")
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="tiny", prompt=[999_999_999])
        assert server.end() == 0, server.log
    record = read_record(tmp_path / "cell")
    assert record.status == "completed"
    assert record.metrics["requests_completed"] == 3
    assert [request.client for request in record.requests if request.finish_reason == "length"] == ["someone"] * 3
    assert record.metrics["prefix_cache_hit_rate"]
    lines = [json.loads(line) for line in (tmp_path / "cell/trace.jsonl").read_text().splitlines()]
    assert [line["output_tokens"] for line in lines] == [5, 5, 5]
    assert lines[0]["keys"][:-1] == lines[1]["keys"][:-1]
    overrides = ["executor=simulated", "model=tiny", "tracker=files", f"hydra.run.dir={tmp_path / 'again'}"]
    assert command.main(["replay", str(tmp_path / "cell"), *overrides]) == 0
    again = read_record(tmp_path / "again")
    for name in ("requests_completed", "prompt_tokens", "output_tokens", "prefix_cache_hit_rate"):
        assert again.metrics[name] == record.metrics[name]


def test_a_drain_finishes_what_runs_and_refuses_the_rest(tmp_path: Path) -> None:
    slow = ("cost_model=constant", "cost_model.step_s=0.005")
    with served(tmp_path / "cell", "executor=simulated", *slow) as server:
        body = {"prompt": "hello", "max_tokens": 700, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as answer:
            chunks = answer.iter_lines()
            next(chunks)
            server.process.terminate()
            for _ in range(50):
                time.sleep(0.05)
                late = httpx.post(f"{server.url}/v1/completions", json={"prompt": "late"})
                if late.status_code == 503:
                    break
            assert late.status_code == 503
            assert httpx.get(f"{server.url}/health").status_code == 503
            assert [line for line in chunks if line][-1] == "data: [DONE]"
        assert server.process.wait(timeout=60) == 0
    assert read_record(tmp_path / "cell").metrics["output_tokens"] == 700


def test_a_full_queue_answers_429(tmp_path: Path) -> None:
    limits = ("executor=simulated", "serving.max_waiting=2", "engine.max_num_seqs=1")
    with served(tmp_path / "cell", *limits) as server:

        async def ask() -> list[int]:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                asked = [client.post("/v1/completions", json={"prompt": "a", "max_tokens": 500}) for _ in range(12)]
                return [answer.status_code for answer in await asyncio.gather(*asked)]

        codes = asyncio.run(ask())
    assert set(codes) == {200, 429}
    assert codes.count(200) >= 2  # one that runs and, at least, one that waits


def test_a_body_beyond_the_limit_answers_413(tmp_path: Path) -> None:
    with served(tmp_path / "cell", "executor=simulated", "serving.max_body_bytes=1000") as server:
        assert httpx.post(f"{server.url}/v1/completions", json={"prompt": "a" * 2000}).status_code == 413


def test_a_port_that_is_taken_is_known_before_a_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["serve", "executor=simulated", "model=tiny", "tracker=files", f"serving.port={port}"]
        assert command.main([*words, f"hydra.run.dir={tmp_path}"]) == 1
    assert f"serving.port={port}" in read_record(tmp_path).reason


def test_replay_needs_a_served_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["replay", str(tmp_path)]) == 2
    assert "only a record of workload=live" in capsys.readouterr().err


def test_a_step_that_fails_ends_its_requests_and_not_the_server(tmp_path: Path) -> None:
    plugin = tmp_path / "touchy.py"
    plugin.write_text(
        "from plugins.samplers.full import Full\n"
        "from framework.registry import SAMPLERS\n"
        "@SAMPLERS.register('touchy')\n"
        "class Touchy(Full):\n"
        "    def prepare(self, params, out=None):\n"
        "        if any(one.top_k == 7 for one in params):\n"
        "            raise RuntimeError('seven')\n"
        "        return super().prepare(params, out)\n"
    )
    overrides = (f"plugins=[{plugin}]", "sampler=touchy", "executor.device=cpu")
    with served(tmp_path / "cell", *overrides) as server:
        url = f"{server.url}/v1/completions"
        broken = httpx.post(url, json={"prompt": "a", "top_k": 7}, timeout=30)
        assert broken.status_code == 500
        assert "seven" in broken.json()["error"]["message"]
        streamed = httpx.post(url, json={"prompt": "a", "top_k": 7, "stream": True}, timeout=30)
        assert "seven" in streamed.text
        assert httpx.post(url, json={"prompt": "a", "max_tokens": 3}, timeout=30).status_code == 200
        assert server.end() == 0, server.log
    record = read_record(tmp_path / "cell")
    assert [request.finish_reason for request in record.requests] == ["failed", "failed", "length"]
