"""The framework's workloads: what they draw, and what they refuse."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framework.interfaces.workload import TimedRequest, WorkloadContext
from framework.registry import WORKLOADS
from framework.workloads.prepare import prepare


class WordTokenizer:
    """One id a word; the template is visible in the ids."""

    has_chat_template = True

    def encode(self, text: str) -> list[int]:
        return [1] + [100 + len(word) for word in text.split()]

    def apply_chat_template(self, messages: list[dict[str, str]]) -> list[int]:
        if messages[0]["role"] == "nobody":
            raise ValueError("unknown role")
        text = " ".join(f"<{m['role']}> {m['content']}" for m in messages) + " <assistant>"
        return self.encode(text)[1:]


def context(seed: int = 0, vocab_size: int = 32_000, tokenizer: Any = None) -> WorkloadContext:
    return WorkloadContext(tokenizer=tokenizer, vocab_size=vocab_size, max_model_len=4096, seed=seed)


def draw(name: str, seed: int = 0, vocab_size: int = 32_000, **parameters: Any) -> list[TimedRequest]:
    workload = WORKLOADS.build({"name": name, **parameters})
    return list(workload.requests(context(seed, vocab_size)))


def ids(request: TimedRequest) -> list[int]:
    assert request.prompt_token_ids is not None
    return request.prompt_token_ids


def test_nano_bench_is_the_original_token_for_token() -> None:
    random.seed(0)
    prompts = [[random.randint(0, 10000) for _ in range(random.randint(100, 1024))] for _ in range(256)]
    max_tokens = [random.randint(100, 1024) for _ in range(256)]
    requests = draw("nano_bench")
    assert [ids(r) for r in requests] == prompts
    assert [r.output_tokens for r in requests] == max_tokens
    assert sum(r.output_tokens for r in requests) == 133_966
    assert all(r.params.temperature == 0.6 and r.params.ignore_eos and r.arrival_s == 0 for r in requests)


def test_nano_bench_seed_keeps_lengths_and_changes_tokens() -> None:
    original, salted, again = draw("nano_bench"), draw("nano_bench", seed=7), draw("nano_bench", seed=7)
    assert [ids(r) for r in salted] == [ids(r) for r in again]
    assert [len(ids(r)) for r in salted] == [len(ids(r)) for r in original]
    assert [r.params for r in salted] == [r.params for r in original]
    assert all(ids(a)[:50] != ids(b)[:50] for a, b in zip(salted, original, strict=True))


def test_nano_bench_prefix_and_small_vocabulary() -> None:
    full = draw("nano_bench")
    assert [ids(r) for r in draw("nano_bench", num_requests=3)] == [ids(r) for r in full[:3]]
    assert max(max(ids(r)) for r in draw("nano_bench", vocab_size=128)) == 127
    with pytest.raises(ValueError, match=r"num_requests=257 must be in 1\.\.256.*synthetic"):
        draw("nano_bench", num_requests=257)


def test_synthetic_ranges_are_closed_and_reached() -> None:
    requests = draw(
        "synthetic",
        num_requests=400,
        prompt_tokens_min=3,
        prompt_tokens_max=5,
        output_tokens_min=2,
        output_tokens_max=4,
        vocab_size=50,
    )
    assert {len(ids(r)) for r in requests} == {3, 4, 5}
    assert {r.output_tokens for r in requests} == {2, 3, 4}
    assert {token for r in requests for token in ids(r)} == set(range(50))


@pytest.mark.parametrize(("arrival", "cv"), [("poisson", 1.0), ("gamma", 3.0), ("gamma", 0.5)])
def test_synthetic_arrivals_have_the_rate_and_burstiness(arrival: str, cv: float) -> None:
    requests = draw(
        "synthetic",
        num_requests=10_000,
        prompt_tokens_min=1,
        prompt_tokens_max=1,
        arrival=arrival,
        rate_per_s=20.0,
        burstiness_cv=cv,
    )
    gaps_s = np.diff([0.0] + [r.arrival_s for r in requests])
    assert gaps_s.min() >= 0
    assert gaps_s.mean() == pytest.approx(1 / 20, rel=0.1)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.1)


def test_synthetic_shared_prefix() -> None:
    requests = draw("synthetic", num_requests=400, shared_prefix_tokens=20, shared_prefix_share=0.25)
    prompts = [tuple(ids(r)[:16]) for r in requests]
    most_common = max(set(prompts), key=prompts.count)
    assert 70 <= prompts.count(most_common) <= 130
    assert len(set(prompts)) == 400 - prompts.count(most_common) + 1


def test_synthetic_depends_on_seed_alone() -> None:
    one = draw("synthetic", seed=3, arrival="poisson")
    assert one == draw("synthetic", seed=3, arrival="poisson")
    own_seed = WORKLOADS.build({"name": "synthetic", "seed": 3, "arrival": "poisson"})
    assert one == list(own_seed.requests(context(seed=99)))
    assert [ids(r) for r in one] != [ids(r) for r in draw("synthetic", seed=4, arrival="poisson")]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_requests": 0}, "num_requests=0 must be at least 1"),
        ({"prompt_tokens_min": 9, "prompt_tokens_max": 8}, "prompt_tokens_max=8"),
        ({"output_tokens_min": 0}, "output_tokens_min=0"),
        ({"arrival": "uniform"}, "'uniform' must be one of all, poisson, gamma"),
        ({"rate_per_s": float("nan")}, "rate_per_s=nan"),
        ({"burstiness_cv": 0.0}, "burstiness_cv=0.0"),
        ({"shared_prefix_share": 1.5}, r"1\.5 must be in \[0, 1\]"),
        ({"temperature": -1.0}, "temperature=-1.0"),
    ],
)
def test_synthetic_refuses(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WORKLOADS.build({"name": "synthetic", **parameters})


def test_chat_goes_through_the_template_once() -> None:
    workload = WORKLOADS.build({"name": "chat", "prompts": ["a bb", "ccc"], "system": "sys", "num_requests": 3})
    requests = prepare(workload, context(tokenizer=WordTokenizer()))
    assert [r.label for r in requests] == ["a bb", "ccc", "a bb"]
    # <system> sys <user> a bb <assistant>: no beginning-of-text id in front, the template is in charge of it
    assert ids(requests[0]) == [108, 103, 106, 101, 102, 111]
    assert requests[0].params.greedy
    assert requests[0].params.max_tokens == 64
    assert workload.prints_answers
    assert workload.has_text
    assert all(r.streams for r in requests)


def test_text_needs_a_tokenizer_and_messages_a_template() -> None:
    chat = WORKLOADS.build({"name": "chat"})
    with pytest.raises(ValueError, match="messages needs a tokenizer"):
        prepare(chat, context())
    tokenizer = WordTokenizer()
    tokenizer.has_chat_template = False
    with pytest.raises(ValueError, match="chat template"):
        prepare(chat, context(tokenizer=tokenizer))


def jsonl(tmp_path: Path, *lines: str, **parameters: Any) -> list[TimedRequest]:
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    workload = WORKLOADS.build({"name": "jsonl", "path": str(path), **parameters})
    return prepare(workload, context(tokenizer=WordTokenizer()))


def test_jsonl_reads_every_kind_of_prompt_in_arrival_order(tmp_path: Path) -> None:
    late = {"prompt_token_ids": [5, 6], "arrival_s": 2, "priority": -1, "client": "c", "deadline_s": 3.5, "top_p": 0.5}
    chat = {"messages": [{"role": "user", "content": "hi you\u2028there"}], "temperature": 0.7, "stop": "x", "seed": 4}
    text = {"prompt": "hello", "max_tokens": 5}
    lines = [json.dumps(late), "", json.dumps(chat, ensure_ascii=False), json.dumps(text)]
    a, b, c = jsonl(tmp_path, *lines, max_tokens=9)
    assert (ids(a), a.label) == ([106, 102, 103, 105, 111], "hi you\u2028there")
    assert (a.params.temperature, a.params.stop, a.params.seed) == (0.7, ("x",), 4)
    assert (ids(b), b.label, b.params.max_tokens, b.params.temperature) == ([1, 105], "hello", 5, 0.0)
    assert (ids(c), c.arrival_s, c.priority, c.client, c.deadline_s) == ([5, 6], 2, -1, "c", 3.5)
    assert (c.params.max_tokens, c.params.top_p) == (9, 0.5)
    assert len(jsonl(tmp_path, *lines, num_requests=2)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object such as"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"prompt": "a", "arrival_s": 1' + "0" * 400 + "}", "expected a finite number"),
        ("{}", "no prompt; expected one of prompt, messages, prompt_token_ids"),
        ('{"prompt": null}', "no prompt"),
        ('{"prompt": "a", "max_token": 3}', "unknown key 'max_token'; expected some of .*max_tokens"),
        ('{"prompt": 3}', "prompt=3 has the wrong type; expected a string"),
        ('{"prompt_token_ids": [1, true]}', "expected a list of integers"),
        ('{"messages": [{"content": "no role"}]}', "expected a list of"),
        ('{"prompt": "a", "arrival_s": -1}', "arrival_s=-1 must be at least 0"),
    ],
)
def test_jsonl_malformed_line_names_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"r\.jsonl:3: .*{message}"):
        jsonl(tmp_path, '{"prompt": "fine"}', "", line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "prompt_token_ids": [1]}', "exactly one of"),
        ('{"prompt": "a", "temperature": -1}', "temperature=-1 must be at least 0"),
        ('{"prompt": "a", "max_tokens": 0}', "max_tokens=0 must be at least 1"),
        ('{"prompt": "a", "max_tokens": 2.5}', "max_tokens=2.5 must be an integer"),
        ('{"prompt": "a", "seed": 18446744073709551616}', "seed=18446744073709551616 must be at most"),
        ('{"prompt": "a", "temperature": NaN}', "temperature=nan must be a finite number"),
        ('{"prompt": "a", "stop": 5}', "stop=5 must be a string or a list"),
        ('{"prompt": "a", "ignore_eos": 1}', "ignore_eos=1 must be True or False"),
        ('{"prompt": "a", "logit_bias": {"x": 1}}', "'x' is not one"),
        ('{"prompt": "a", "logit_bias": 3}', "logit_bias=3 must be a mapping"),
        ('{"prompt": "a", "logit_bias": {"' + "9" * 5000 + '": 3}}', "limit"),
        (r'{"prompt": "a\ud800"}', r'"a\ud800" holds half of a surrogate pair'),
        (r'{"messages": [{"role": "user", "content": "\udfff"}]}', "half of a surrogate pair"),
        (r'{"prompt": "a", "client": "\ud800"}', "half of a surrogate pair"),
        ('{"messages": []}', "at least 1 message"),
        ('{"messages": [{"role": "nobody", "content": ""}]}', "unknown role"),
    ],
)
def test_jsonl_refused_request_leaves_the_others(tmp_path: Path, line: str, message: str) -> None:
    good, bad = jsonl(tmp_path, '{"prompt": "fine"}', line)
    assert not good.error
    assert ids(good) == [1, 104]
    assert message in bad.error


def test_jsonl_file_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jsonl cannot be read: No such file"):
        prepare(WORKLOADS.build({"name": "jsonl", "path": str(tmp_path / "nowhere.jsonl")}), context())
    with pytest.raises(ValueError, match=r"r\.jsonl holds 0 requests"):
        jsonl(tmp_path, "")
    with pytest.raises(ValueError, match=r"workload\.path .*has no default"):
        WORKLOADS.build({"name": "jsonl"})
