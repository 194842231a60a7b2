"""What requests state as max_tokens, apart from how long they will be; and what the record says of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framework.app.cells import run
from framework.interfaces.workload import TimedRequest, WorkloadContext
from framework.registry import WORKLOADS

MODEL_LEN = 4096
SMALL: dict[str, dict[str, Any]] = {
    "synthetic": {"num_requests": 20, "output_tokens_min": 3, "output_tokens_max": 9},
    "sessions": {"num_sessions": 4, "output_tokens_min": 3, "output_tokens_max": 9},
    "clients": {"num_requests": 20},
    "nano_bench": {"num_requests": 5},
}


def draw(name: str, **parameters: Any) -> list[TimedRequest]:
    context = WorkloadContext(tokenizer=None, vocab_size=1000, max_model_len=MODEL_LEN, seed=0)
    return list(WORKLOADS.build({"name": name, **parameters}).requests(context))


def trace(folder: Path, *more: dict[str, int]) -> str:
    path = folder / "t.jsonl"
    rows = [{"time_s": i, "prompt_tokens": 4, "output_tokens": 6, **one} for i, one in enumerate(more)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.parametrize("name", SMALL)
def test_the_limit_says_nothing_of_the_length(name: str) -> None:
    free, capped = draw(name, **SMALL[name]), draw(name, **SMALL[name], max_tokens=7)
    assert {r.params.max_tokens for r in free} == {MODEL_LEN}, "the model's, where users state none"
    assert {r.params.max_tokens for r in capped} == {7}
    assert [r.output_tokens for r in free] == [r.output_tokens for r in capped], "a cap redraws nothing"
    assert len({r.output_tokens for r in free}) > 1


@pytest.mark.parametrize("name", SMALL)
def test_a_limit_that_no_request_can_state_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"workload\.max_tokens=0 must be at least 1, or null"):
        draw(name, **SMALL[name], max_tokens=0)


def test_a_trace_may_state_limits(tmp_path: Path) -> None:
    path = trace(tmp_path, {"max_tokens": 50}, {}, {"max_tokens": 2})
    assert [(r.output_tokens, r.params.max_tokens) for r in draw("trace", path=path)] == [(6, 50), (6, 4096), (6, 2)]
    assert [r.params.max_tokens for r in draw("trace", path=path, max_tokens=9)] == [50, 9, 2]
    with pytest.raises(ValueError, match="max_tokens"):
        draw("trace", path=trace(tmp_path, {"max_tokens": 0}))


def record_of(folder: Path, *overrides: str) -> Any:
    common = ["tracker=files", "model=tiny", "executor=simulated", "engine.num_blocks=64"]
    record = run([*common, *overrides], folder=folder / "cell")
    assert record.status == "completed", record.reason
    return record


def test_the_record_says_what_was_hidden_and_what_was_cut(tmp_path: Path) -> None:
    path = trace(tmp_path, {"max_tokens": 50}, {}, {"max_tokens": 2})
    record = record_of(tmp_path, "workload=trace", f"workload.path={path}")
    facts = record.effective["workload"]
    assert (facts["output_lengths"], facts["cut_by_max_tokens"]) == ("hidden", 1)
    assert sorted(r.num_output_tokens for r in record.requests) == [2, 6, 6]
    assert "oracle" not in record.effective


def test_the_record_says_where_policies_could_read_lengths(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    lines = [{"prompt_token_ids": [1, 2], "max_tokens": 5}, {"prompt_token_ids": [3], "output_tokens": 3}]
    path.write_text("\n".join(map(json.dumps, lines)))
    overrides = ["workload=jsonl", f"workload.path={path}"]
    record = record_of(tmp_path, *overrides)
    assert record.effective["workload"]["output_lengths"] == "mixed"
    assert sorted(r.num_output_tokens for r in record.requests) == [3, 5]


@pytest.mark.parametrize(
    ("policy", "oracle"),
    [
        ("predictor=none", None),
        ("predictor=histogram", None),
        ("predictor=oracle", ["predictor"]),
        ("predictor=noisy", ["predictor"]),
        ("eviction=belady", ["eviction"]),
    ],
)
def test_the_record_names_oracles(tmp_path: Path, policy: str, oracle: list[str] | None) -> None:
    record = record_of(tmp_path, "workload=synthetic", "workload.num_requests=4", "scheduler=shortest_first", policy)
    assert record.effective.get("oracle") == oracle
