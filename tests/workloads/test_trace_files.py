"""Trace files packed as they are published, and windows of them."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from framework.registry import WORKLOADS
from framework.workloads.prepare import prepare
from tests.workloads.test_traces import build, context, draw, write

TIMES_S = (100.0, 101.5, 103.0, 103.0, 110.0, 200.0)
LINES = [{"time_s": time_s, "prompt_tokens": 10 + i, "output_tokens": 2} for i, time_s in enumerate(TIMES_S)]
PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("ending", PACK)
def test_a_packed_file_holds_the_same_requests(tmp_path: Path, ending: str) -> None:
    plain = Path(write(tmp_path, LINES))
    packed = tmp_path / f"t.jsonl{ending}"
    packed.write_bytes(PACK[ending](plain.read_bytes()))
    assert [vars_of(r) for r in draw("trace", str(packed))] == [vars_of(r) for r in draw("trace", str(plain))]
    texts = tmp_path / f"texts.jsonl{ending}"
    texts.write_bytes(PACK[ending](json.dumps({"prompt_token_ids": [1, 2]}).encode() + b"\n"))
    (request,) = prepare(WORKLOADS.build({"name": "jsonl", "path": str(texts)}), context(needs_token_ids=True))
    assert request.prompt_token_ids == [1, 2]


def vars_of(request) -> tuple:
    return request.arrival_s, request.num_prompt_tokens, request.output_tokens


@pytest.mark.parametrize(
    ("name", "data"), [("t.zst", b"plain text"), ("t.gz", gzip.compress(b"x" * 9999, mtime=0)[:40])], ids=["zst", "gz"]
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for workload in ("trace", "jsonl"):
        with pytest.raises(ValueError, match=rf"workload\.path=.*{name} cannot be read: .*its name says that it is"):
            prepare(WORKLOADS.build({"name": workload, "path": str(tmp_path / name)}), context())


@pytest.mark.parametrize(
    ("from_s", "to_s", "expected"),
    [
        (0.0, None, [0, 1, 2, 3, 4, 5]),
        (1.5, None, [1, 2, 3, 4, 5]),
        (1.5, 3.0, [1]),
        (2.0, 10.0, [2, 3]),
        (2.0, 10.1, [2, 3, 4]),
    ],
)
def test_a_window_counts_from_the_first_request(
    tmp_path: Path, from_s: float, to_s: float | None, expected: list[int]
) -> None:
    requests = draw("trace", write(tmp_path, LINES), from_s=from_s, to_s=to_s)
    assert [request.num_prompt_tokens for request in requests] == [10 + i for i in expected]
    assert [request.arrival_s for request in requests] == [TIMES_S[i] - TIMES_S[expected[0]] for i in expected]


def test_limits_count_within_the_window_and_what_is_outside_need_not_fit(tmp_path: Path) -> None:
    lines = [{**LINES[0], "prompt_tokens": 9999}, *LINES[1:]]
    path = write(tmp_path, lines)
    assert [r.num_prompt_tokens for r in draw("trace", path, from_s=1.0, limit=2, max_model_len=100)] == [11, 12]
    looped = draw("trace", path, from_s=1.0, to_s=4.0, loop=True, num_requests=5, max_model_len=100)
    assert [r.num_prompt_tokens for r in looped] == [11, 12, 13, 11, 12]
    with pytest.raises(ValueError, match=r"0 requests that can be used between workload\.from_s=300\.0 and to_s=inf"):
        draw("trace", path, from_s=300.0)
    for bad in ({"from_s": -1.0}, {"from_s": 3.0, "to_s": 3.0}):
        with pytest.raises(ValueError, match=r"workload\.(from|to)_s=.* must be"):
            build("trace", path, **bad)
