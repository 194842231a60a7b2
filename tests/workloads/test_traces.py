"""Workloads from trace files: what a line becomes, which ones are refused, and when requests arrive."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framework.app.experiment import run_cell
from framework.config.compose import compose
from framework.interfaces.workload import TimedRequest, Workload, WorkloadContext
from framework.records.record import read_record
from framework.records.tracking.base import CellInfo
from framework.registry import WORKLOADS
from framework.registry.discovery import discover
from framework.workloads.prepare import prepare
from tests.eviction import mooncake

discover()  # this file alone has nobody else to do it

AZURE = mooncake.PATH.with_name("azure_conv_2023.csv")
AZURE_LINES = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 23:59:59.9999999,879,55
2023-11-17 00:00:01,91,16
"""
BURST_LINES = """Timestamp,Session ID,Model,Request tokens,Response tokens,Total tokens,Log Type
5,a,ChatGPT,472,18,490,Conversation log
45.5,b,GPT-4,1087,230,1317,"API, log"
"""


def write(folder: Path, lines: str | Sequence[dict[str, Any]]) -> str:
    path = folder / "t.txt"
    text = lines if isinstance(lines, str) else "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return str(path)


def line_of(time_ms: float, prompt: int, keys: list[int], output: int = 5) -> dict[str, Any]:
    return {"timestamp": time_ms, "input_length": prompt, "output_length": output, "hash_ids": keys}


def build(name: str, path: str, **parameters: Any) -> Workload:
    workload = WORKLOADS.build({"name": name, "path": path, **parameters})
    assert isinstance(workload, Workload)
    return workload


def context(*, needs_token_ids: bool = False, max_model_len: int = 200_000, seed: int = 0) -> WorkloadContext:
    return WorkloadContext(
        tokenizer=None, vocab_size=1000, max_model_len=max_model_len, seed=seed, needs_token_ids=needs_token_ids
    )


def draw(name: str, path: str, *, max_model_len: int = 200_000, **parameters: Any) -> list[TimedRequest]:
    return prepare(build(name, path, **parameters), context(max_model_len=max_model_len))


def keys(request: TimedRequest) -> list[int]:
    assert request.prompt_keys is not None
    return list(request.prompt_keys)


def test_mooncake_lines(tmp_path: Path) -> None:
    lines = [line_of(0, 1024, [7, 8]), line_of(27_482, 1025, [7, 8, 9]), line_of(27_482, 3, [10], output=1)]
    a, b, c = draw("mooncake", write(tmp_path, lines))
    assert [r.arrival_s for r in (a, b, c)] == [0, 27.482, 27.482]
    assert [(r.num_prompt_tokens, keys(r), r.key_tokens, r.output_tokens) for r in (a, b, c)] == [
        (1024, [7, 8], 512, 5),
        (1025, [7, 8, 9], 512, 5),
        (3, [10], 512, 1),
    ]
    assert all(r.params.ignore_eos and r.params.greedy for r in (a, b, c))
    assert b.origin == "t.txt:2"


def test_azure_lines_across_midnight_and_with_windows_line_ends(tmp_path: Path) -> None:
    for text in (AZURE_LINES, AZURE_LINES.replace("\n", "\r\n"), "\ufeff" + AZURE_LINES):
        requests = draw("azure", write(tmp_path, text))
        assert [r.num_prompt_tokens for r in requests] == [374, 396, 879, 91]
        assert [r.output_tokens for r in requests] == [44, 109, 55, 16]
        # 4.314579 s; then 5 h 44 min 13.319409 s, the seventh digit being dropped
        assert [r.arrival_s for r in requests] == pytest.approx([0, 4.314579, 20653.319409, 20654.31941], abs=1e-9)
        assert all(keys(r) == [] for r in requests)


def test_more_requests_than_a_file_has_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [line_of(t, 5, [t]) for t in (1000, 3000, 2000)])
    assert len(draw("mooncake", path, num_requests=2)) == 2
    with pytest.raises(ValueError, match=r"num_requests=3, but .* has 2 requests .*=null, 1 bad .*loop=true"):
        draw("mooncake", path, num_requests=3, on_bad_line="skip")
    with pytest.raises(ValueError, match=r"num_requests=2, but .* has 1 requests within workload\.limit=1"):
        draw("mooncake", path, num_requests=2, limit=1)


def test_azure_times_count_from_the_first_line_that_can_be_used(tmp_path: Path) -> None:
    header, first, second = AZURE_LINES.split("\n")[:3]
    path = write(tmp_path, f"{header}\n2099-01-01 00:00:00,x,4\n{first}\n{second}\n")
    assert [r.arrival_s for r in draw("azure", path, on_bad_line="skip")] == pytest.approx([0, 4.314579], abs=1e-9)


def test_burstgpt_columns_are_found_by_name(tmp_path: Path) -> None:
    a, b = draw("burstgpt", write(tmp_path, BURST_LINES))
    assert (a.num_prompt_tokens, a.output_tokens, a.arrival_s) == (472, 18, 0)
    assert (b.num_prompt_tokens, b.output_tokens, b.arrival_s) == (1087, 230, 40.5)
    assert [(r.client, r.category) for r in (a, b)] == [("ChatGPT", "Conversation log"), ("GPT-4", "API, log")]


def test_trace_lines_carry_client_priority_and_slo(tmp_path: Path) -> None:
    more = {"keys": [3, 4], "key_tokens": 8, "client": "c", "category": "d", "priority": -2, "ttft_slo_s": 0.5}
    plain = {"time_s": 10, "prompt_tokens": 9, "output_tokens": 2}
    a, b = draw("trace", write(tmp_path, [plain | {"keys": None}, plain | {"time_s": 12.5} | more]), time_scale=2.0)
    assert (a.num_prompt_tokens, keys(a), a.arrival_s, a.deadline_s) == (9, [], 0, None)
    assert (keys(b), b.key_tokens, b.client, b.category, b.priority) == ([3, 4], 8, "c", "d", -2)
    assert (b.arrival_s, b.deadline_s) == (5.0, 5.5)  # the objective is the client's, whatever the time scale


BAD = [
    ("mooncake", "{", "not JSON"),
    ("mooncake", "[1]", "expected an object with timestamp"),
    ("mooncake", '{"timestamp": 0, "input_length": 1, "output_length": 1}', "no 'hash_ids'"),
    ("mooncake", json.dumps(line_of(0, 1, [1]) | {"x": 1}), "unknown key 'x'"),
    ("mooncake", json.dumps(line_of(-1, 1, [1])), "timestamp=-1 must be at least 0"),
    ("mooncake", json.dumps(line_of(float("nan"), 1, [1])), "timestamp=nan must be a finite number"),
    ("mooncake", json.dumps(line_of(0, -5, [1])), "input_length=-5 must be at least 1"),
    ("mooncake", json.dumps(line_of(0, 5, [1], output=-2)), "output_length=-2 must be at least 1"),
    ("mooncake", json.dumps(line_of(0, 512, [1, 2])), "2 hash_ids for input_length=512, which has 1 blocks of 512"),
    ("mooncake", json.dumps(line_of(0, 5, [-1])), "hash_ids=-1 must be at least 0"),
    ("mooncake", json.dumps(line_of(0, 5, [2**63])), "must be below"),
    ("mooncake", json.dumps(line_of(0, 4000, list(range(8)), output=97)), "4000 prompt and 97 output tokens are 4097"),
    ("mooncake", json.dumps(line_of(10**400, 1, [1])), "... must be a finite number"),
    ("mooncake", "[" * 100_000, "nested too deeply"),
    ("azure", "2023-11-16 18:15:46,+-3,4", "ContextTokens='+-3' must be an integer"),
    ("azure", "3" * 200_000 + ",3,4", "not CSV (field larger than field limit"),
    ("azure", "yesterday,3,4", "TIMESTAMP='yesterday' must be a date and time"),
    ("azure", "2023-11-16 18:15:46,3", "has 2 columns where the header has 3"),
    ("azure", "2023-11-16 18:15:46,3.5,4", "ContextTokens='3.5' must be an integer"),
    ("azure", "2023-11-16 18:15:46,3,-4", "GeneratedTokens=-4 must be at least 1"),
    ("burstgpt", "x,,ChatGPT,1,1,2,API log", "Timestamp='x' must be a number"),
    ("burstgpt", "5,,ChatGPT,0,0,0,API log", "marks a request that failed; use a file without_fails"),
    ("burstgpt", "inf,,ChatGPT,1,1,2,API log", "must be a finite number"),
    ("trace", '{"time_s": 0, "prompt_tokens": 0, "output_tokens": 1}', "prompt_tokens=0 must be at least 1"),
    ("trace", '{"time_s": 0, "prompt_tokens": 1, "output_tokens": true}', "output_tokens=True must be an integer"),
    ("trace", '{"time_s": 0, "prompt_tokens": 9, "output_tokens": 1, "keys": [1], "key_tokens": 8}', "1 keys for"),
    ("trace", '{"time_s": 0, "prompt_tokens": 9, "output_tokens": 1, "keys": 4}', "keys=4 must be a list"),
    ("trace", '{"time_s": 0, "prompt_tokens": 9, "output_tokens": 1, "client": 4}', "client=4 must be a string"),
    ("trace", '{"time_s": 0, "prompt_tokens": 9, "output_tokens": 1, "priority": 0.5}', "priority=0.5 must be an int"),
    ("trace", '{"time_s": 0, "prompt_tokens": 9, "output_tokens": 1, "ttft_slo_s": -1}', "ttft_slo_s=-1 must be"),
]
GOOD = {
    "mooncake": ("", json.dumps(line_of(0, 5, [1]))),
    "azure": (AZURE_LINES.split("\n")[0], AZURE_LINES.split("\n")[1]),
    "burstgpt": (BURST_LINES.split("\n")[0], BURST_LINES.split("\n")[1]),
    "trace": ("", '{"time_s": 0, "prompt_tokens": 9, "output_tokens": 1, "keys": [1], "key_tokens": 16}'),
}


@pytest.mark.parametrize(("name", "line", "message"), BAD)
def test_a_bad_line_is_an_error_with_file_and_line_or_counted(
    tmp_path: Path, name: str, line: str, message: str
) -> None:
    header, good = GOOD[name]
    path = write(tmp_path, f"{header}\n\n{good}\n{line}\n{good}\n")
    expected = re.escape(f"{path}:4: ") + ".*" + re.escape(message) + r".*workload\.on_bad_line=skip"
    with pytest.raises(ValueError, match=expected):
        draw(name, path, max_model_len=4096)
    workload = build(name, path, on_bad_line="skip")
    assert len(prepare(workload, context(max_model_len=4096))) == 2
    assert (workload.effective["trace_requests"], workload.effective["bad_lines_skipped"]) == (2, 1)
    assert message in str(workload.effective["first_bad_line"])


def test_a_line_out_of_order_is_an_error_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, [line_of(t, 5, [t]) for t in (1000, 3000, 2000, 2500, 3000, 4000)])
    with pytest.raises(ValueError, match=r":3: its time, 2\.0 s, is before 3\.0 s"):
        draw("mooncake", path)
    workload = build("mooncake", path, on_bad_line="skip")
    assert [keys(r)[0] for r in prepare(workload, context())] == [1000, 2000, 2500, 3000, 4000]
    assert (
        ":2: its time, 3.0 s, is after 2.0 s, that of line 3, which follows it" in workload.effective["first_bad_line"]
    )


def test_keys_of_different_sizes_cannot_share(tmp_path: Path) -> None:
    line = {"time_s": 0, "prompt_tokens": 9, "output_tokens": 1, "keys": [1], "key_tokens": 16}
    with pytest.raises(ValueError, match=":2: key_tokens=32, but 16 above"):
        draw("trace", write(tmp_path, [line, line | {"key_tokens": 32}]))


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    for name, source in (
        ("mooncake", "kvcache-ai/Mooncake"),
        ("azure", "AzurePublicDataset"),
        ("burstgpt", "BurstGPT"),
    ):
        with pytest.raises(ValueError, match=f"workload.path is not set; pass .*{source}"):
            WORKLOADS.build({"name": name})
        with pytest.raises(ValueError, match=f"nowhere is no file; pass .*{source}"):
            build(name, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"t\.txt:1: no column 'TIMESTAMP' in the header 'a,b'"):
        draw("azure", write(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(ValueError, match=r"holds 0 requests that can be used; at least 1"):
        draw("mooncake", write(tmp_path, "\n"))
    with pytest.raises(ValueError, match=r"2 lines skipped, the first: .*t\.txt:1: not JSON"):
        draw("mooncake", write(tmp_path, "{\n{\n"), on_bad_line="skip")
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="is not UTF-8"):
        draw("mooncake", str(tmp_path / "t.txt"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_requests": 0}, "num_requests=0 must be at least 1"),
        ({"limit": 0}, "limit=0 must be at least 1"),
        ({"loop": True}, "loop=True must be false unless workload.num_requests"),
        ({"time_scale": 0.0}, "time_scale=0.0 must be above 0"),
        ({"arrival": "uniform"}, "'uniform' must be one of trace, all, poisson, gamma"),
        ({"rate_per_s": 3.0, "arrival": "all"}, "rate_per_s=3.0 must be null with arrival=all"),
        ({"rate_per_s": -3.0, "arrival": "poisson"}, "rate_per_s=-3.0 must be above 0"),
        ({"time_scale": 2.0, "arrival": "all"}, "time_scale=2.0 must be 1 where the trace's times are not used"),
        ({"time_scale": 2.0, "arrival": "gamma", "rate_per_s": 1.0}, "time_scale=2.0 must be 1"),
        ({"burstiness_cv": 2.0, "arrival": "poisson"}, "burstiness_cv=2.0 must be 1, or set arrival=gamma"),
        ({"on_bad_line": "ignore"}, "'ignore' must be one of error, skip"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
    ],
)
def test_options_are_refused(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("mooncake", write(tmp_path, [line_of(0, 5, [1])]), **parameters)


def test_loop_repeats_lengths_and_times_with_keys_of_its_own(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [line_of(0, 1024, [4, 9]), line_of(2000, 1024, [4, 7]), line_of(6000, 600, [4, 9]), line_of(9000, 5, [1])],
    )
    workload = build("mooncake", path, limit=3, loop=True, num_requests=8)
    requests = prepare(workload, context())
    # a pass lasts 6 s and one mean gap (3 s) more
    assert [r.arrival_s for r in requests] == [0, 2, 6, 9, 11, 15, 18, 20]
    assert [r.num_prompt_tokens for r in requests] == [1024, 1024, 600] * 2 + [1024, 1024]
    first, second, third = ([keys(r) for r in requests[i : i + 3]] for i in (0, 3, 6))
    assert first == [[4, 9], [4, 7], [4, 9]]
    for later in (second, third):
        assert later[0][0] == later[1][0]
        assert later[0][1] != later[1][1]
    assert second[2] == second[0]
    passes = [{key for row in each for key in row} for each in (first, second, third)]
    assert len(set.union(*passes)) == 9
    assert workload.effective["passes"] == 3
    assert len(draw("mooncake", path, num_requests=2)) == 2


@pytest.mark.parametrize(("arrival", "cv"), [("poisson", 1.0), ("gamma", 3.0)])
def test_arrivals_are_replaced_and_lengths_stay(tmp_path: Path, arrival: str, cv: float) -> None:
    path = write(tmp_path, [line_of(1000 * i, 5 + i % 7, [i]) for i in range(500)])
    options: dict[str, Any] = {"arrival": arrival, "burstiness_cv": cv, "loop": True, "num_requests": 20_000}
    for more, rate_per_s in (({"rate_per_s": 20.0}, 20.0), ({"time_scale": 0.25}, 4.0)):
        requests = draw("mooncake", path, **options, **more)
        gaps_s = np.diff([0.0] + [r.arrival_s for r in requests])
        assert gaps_s.mean() == pytest.approx(1 / rate_per_s, rel=0.1)
        assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.1)
        assert [r.num_prompt_tokens for r in requests[:501]] == [5 + i % 7 for i in range(500)] + [5]
    assert [r.arrival_s for r in requests] == [r.arrival_s for r in draw("mooncake", path, **options, **more)]
    assert requests[0].arrival_s != draw("mooncake", path, **options, **more, seed=5)[0].arrival_s
    assert {r.arrival_s for r in draw("mooncake", path, arrival="all")} == {0.0}


def test_a_rate_stretches_the_times_of_a_trace(tmp_path: Path) -> None:
    path = write(tmp_path, [line_of(t, 5, [t]) for t in (0, 100, 100, 900, 2000)])
    requests = draw("mooncake", path, rate_per_s=8.0, loop=True, num_requests=10)
    assert [r.arrival_s for r in requests[:5]] == pytest.approx([0, 0.025, 0.025, 0.225, 0.5])  # 4 gaps at 8 per second
    assert requests[5].arrival_s == pytest.approx(0.625), "a mean gap between passes"
    with pytest.raises(ValueError, match=r"rate_per_s=8: all requests of .* have one time"):
        draw("mooncake", write(tmp_path, [line_of(5, 5, [1]), line_of(5, 5, [2])]), rate_per_s=8.0)
    with pytest.raises(ValueError, match=r"max_concurrency=0 must be in \[1, 1000000\]"):
        draw("mooncake", path, max_concurrency=0)


def test_a_trace_of_one_moment_has_no_rate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rate_per_s=null: all requests of .*t\.txt have one time"):
        draw("mooncake", write(tmp_path, [line_of(5, 5, [1]), line_of(5, 5, [2])]), arrival="poisson")


def test_drawn_tokens_are_shared_exactly_where_keys_are(tmp_path: Path) -> None:
    lines = [line_of(0, 1300, [1, 2, 3]), line_of(0, 1400, [1, 2, 3]), line_of(0, 1300, [1, 4, 3]), line_of(0, 40, [9])]
    workload = build("mooncake", write(tmp_path, lines))
    a, b, c, d = (np.array(r.prompt_token_ids) for r in prepare(workload, context(needs_token_ids=True)))
    assert [len(ids) for ids in (a, b, c, d)] == [1300, 1400, 1300, 40]
    assert (a == b[:1300]).all()
    assert (a[:512] == c[:512]).all()
    assert (a[1024:] == c[1024:]).all()
    assert (a[512:1024] == c[512:1024]).mean() < 0.05
    assert (b >= 0).all()
    assert (b < 1000).all()
    assert len(np.unique(b)) > 600
    again = prepare(build("mooncake", str(workload.path)), context(needs_token_ids=True))  # type: ignore[attr-defined]
    assert (np.array(again[0].prompt_token_ids) == a).all()
    other = prepare(build("mooncake", str(workload.path)), context(needs_token_ids=True, seed=1))  # type: ignore[attr-defined]
    assert (np.array(other[0].prompt_token_ids) == a).mean() < 0.05


def test_drawn_tokens_of_prompts_without_keys_share_nothing(tmp_path: Path) -> None:
    requests = prepare(build("azure", write(tmp_path, AZURE_LINES)), context(needs_token_ids=True))
    starts = [tuple(r.prompt_token_ids or ())[:8] for r in requests]
    assert [len(r.prompt_token_ids or ()) for r in requests] == [374, 396, 879, 91]
    assert len(set(starts)) == 4


def test_the_public_mooncake_trace() -> None:
    chains = mooncake.chains()
    requests = draw("mooncake", str(mooncake.PATH))
    assert [keys(r) for r in requests] == chains  # also the order of ties
    assert len(requests) == 12_031
    assert len({r.arrival_s for r in requests}) == 1_180
    assert sum(r.num_prompt_tokens or 0 for r in requests) == pytest.approx(145e6, rel=0.01)
    assert sum(r.output_tokens for r in requests) == pytest.approx(4.1e6, rel=0.02)


def test_the_public_azure_trace() -> None:
    if not AZURE.exists():
        pytest.skip(f"needs the trace {AZURE.name} in ../shared/traces")
    requests = draw("azure", str(AZURE))
    assert len(requests) == 19_366
    assert requests[-1].arrival_s == pytest.approx(3501.721937, abs=1e-5)  # 18:15:46.68059 to 19:14:08.402527


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small trace on the tiny model, with one bad line among its lines."""
    folder = tmp_path_factory.mktemp("served")
    lines = [
        line_of(0, 1100, [1, 2, 3], output=2),
        line_of(-1, 1, [1]),
        line_of(900, 1300, [1, 2, 4], output=2),
        line_of(900, 1024, [1, 2], output=2),
        line_of(950, 600, [5, 2], output=2),
    ]
    overrides = [
        "tracker=files",
        "model=tiny",
        "workload=mooncake",
        "workload.on_bad_line=skip",
        "workload.time_scale=0.1",
    ]
    cfg = compose([*overrides, f"workload.path={write(folder, lines)}"])
    assert run_cell(cfg, CellInfo(folder=folder / "cell", cell_id="x", config={})) == "completed"
    return read_record(folder / "cell")


def test_shared_keys_are_prefix_hits_of_a_real_engine(served: Any) -> None:
    cached = {r.request_id: r.num_cached_tokens for r in served.requests}
    # blocks of 16: two whole keys; all but the last block of a prompt that is cached whole; nothing after another key
    assert cached == {0: 0, 1: 1024, 2: 1008, 3: 0}
    assert {r.num_output_tokens for r in served.requests} == {2}


def test_the_record_says_which_trace_ran_and_what_was_left_out(served: Any) -> None:
    facts = served.effective["workload"]
    assert (facts["trace_requests"], facts["bad_lines_skipped"], facts["passes"]) == (4, 1, 1)
    assert "t.txt:2: timestamp=-1" in facts["first_bad_line"]
    assert len(facts["trace_sha256"]) == len(facts["requests_sha256"]) == 64
    assert re.match(
        r"1 of 5 lines were left out \(.*=skip\), the first because: .*t\.txt:2: timestamp=-1", served.reason
    )


def test_a_policy_with_foresight_knows_prompts_by_key(tmp_path: Path) -> None:
    """Five prefixes in turn, in a cache that holds three prompts: the least recently used one is always the next."""
    lines = [line_of(60_000 * i, 600, [i % 5, 100 + i], output=2) for i in range(40)]
    overrides = ["tracker=files", "model=tiny", "executor=simulated", "workload=mooncake"]
    overrides += [f"workload.path={write(tmp_path, lines)}", "engine.block_size=512", "engine.num_blocks=4"]
    found = {}
    for name in ("lru", "belady"):
        cfg = compose([*overrides, "engine.max_model_len=1024", f"eviction={name}"])
        assert run_cell(cfg, CellInfo(folder=tmp_path / name, cell_id="x", config={})) == "completed"
        found[name] = sum(r.num_cached_tokens for r in read_record(tmp_path / name).requests) // 512
    assert found["lru"] == 0
    assert found["belady"] > 10
