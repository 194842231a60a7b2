"""The sessions workload: what is drawn, and how conversations grow when a real engine answers."""

from __future__ import annotations

import itertools
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
from framework.workloads.prepare import prepare


def draw(*, max_model_len: int = 100_000, run_seed: int = 0, **parameters: Any) -> list[TimedRequest]:
    context = WorkloadContext(tokenizer=None, vocab_size=30_000, max_model_len=max_model_len, seed=run_seed)
    return prepare(WORKLOADS.build({"name": "sessions", **parameters}), context)


def by_session(requests: Sequence[TimedRequest]) -> list[list[TimedRequest]]:
    sessions: list[list[TimedRequest]] = []
    for place, request in enumerate(requests):
        if request.after is None:
            sessions.append([])
        else:
            assert request.after == place - 1
        sessions[-1].append(request)
    return sessions


def ids(request: TimedRequest) -> list[int]:
    assert request.prompt_token_ids is not None
    return list(request.prompt_token_ids)


def test_sessions_have_turns_and_tool_loops_in_range() -> None:
    ranges = {"turns_min": 2, "turns_max": 3, "tool_calls_min": 1, "tool_calls_max": 2}
    lengths = {"user_tokens_min": 10, "user_tokens_max": 12, "tool_tokens_min": 20, "tool_tokens_max": 23}
    sessions = by_session(
        draw(num_sessions=300, **ranges, **lengths, system_tokens=7, output_tokens_min=3, output_tokens_max=4)
    )
    assert len(sessions) == 300
    turns = [[r for r in session if "tool" not in r.origin] for session in sessions]
    assert {len(turn) for turn in turns} == {2, 3}
    assert {len(ids(r)) for turn in turns for r in turn[1:]} == {10, 11, 12}
    assert {len(ids(turn[0])) for turn in turns} == {17, 18, 19}
    results = [r for session in sessions for r in session if "tool" in r.origin]
    assert {len(ids(r)) for r in results} == {20, 21, 22, 23}
    assert {r.origin.rpartition(" ")[2] for r in results} == {"1", "2"}
    assert len({s[0].client for s in sessions}) == 300
    assert all(len({r.client for r in s}) == 1 for s in sessions)
    assert {r.output_tokens for s in sessions for r in s} == {3, 4}


def test_system_prompts_are_shared_and_nothing_else_is() -> None:
    sessions = by_session(draw(num_sessions=200, num_system_prompts=3, system_tokens=30))
    systems = [tuple(ids(s[0])[:30]) for s in sessions]
    counts = [systems.count(system) for system in set(systems)]
    assert len(counts) == 3
    assert min(counts) > 40  # 66.7 expected, standard deviation 6.7
    rest = [tuple(ids(s[0])[30:38]) for s in sessions] + [tuple(ids(r)[:8]) for s in sessions for r in s[1:]]
    assert len(set(rest)) == len(rest)


def test_think_and_tool_times_are_exponential_around_their_means() -> None:
    requests = draw(num_sessions=3000, think_time_s=4.0, tool_time_s=0.25, arrival="all")
    for kind, mean_s in (("tool", 0.25), ("turn", 4.0)):
        is_tool = kind == "tool"
        delays_s = np.array([r.delay_s for r in requests if r.after is not None and ("tool" in r.origin) == is_tool])
        assert len(delays_s) > 2000
        assert delays_s.mean() == pytest.approx(mean_s, rel=0.08)
        assert delays_s.std() == pytest.approx(mean_s, rel=0.12)
    assert all(r.delay_s == 0 and r.arrival_s == 0 for r in requests if r.after is None)


def test_arrivals_are_those_of_sessions_and_everything_depends_on_the_seed() -> None:
    requests = draw(num_sessions=2000, rate_per_s=5.0, arrival="gamma", burstiness_cv=2.0)
    gaps_s = np.diff([0.0] + [r.arrival_s for r in requests if r.after is None])
    assert gaps_s.mean() == pytest.approx(0.2, rel=0.15)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(2.0, rel=0.2)
    assert draw() == draw(run_seed=0)
    assert draw(seed=5) == draw(seed=5, run_seed=1)
    assert draw() != draw(run_seed=1)


def test_num_requests_cuts_at_the_end() -> None:
    requests = draw(num_sessions=50)
    assert draw(num_sessions=50, num_requests=17) == requests[:17]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_sessions": 0}, "num_sessions=0 must be at least 1"),
        ({"num_requests": 0}, "num_requests=0 must be at least 1"),
        ({"turns_min": 0}, "turns_min=0 must be at least 1"),
        ({"tool_calls_min": 3}, "tool_calls_max=2 must be at least tool_calls_min=3"),
        ({"output_tokens_min": 0}, "output_tokens_min=0"),
        ({"system_tokens": -1}, "system_tokens=-1"),
        ({"num_system_prompts": 0}, "num_system_prompts=0"),
        ({"think_time_s": -1.0}, "think_time_s=-1.0"),
        ({"arrival": "trace"}, "'trace' must be one of all, poisson, gamma"),
        ({"rate_per_s": 0.0}, "rate_per_s=0.0"),
    ],
)
def test_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(**parameters)


def test_a_session_that_outgrows_the_model_is_refused_before_it_runs() -> None:
    with pytest.raises(ValueError, match=r"session 0, turn 3: the conversation has 400 tokens by then.* at most 399"):
        draw(
            max_model_len=399,
            turns_min=4,
            turns_max=4,
            tool_calls_max=0,
            system_tokens=40,
            user_tokens_min=50,
            user_tokens_max=50,
            output_tokens_min=40,
            output_tokens_max=40,
        )


def test_follow_ups_that_cannot_be_are_refused() -> None:
    class Fixed(Workload):
        def __init__(self, *requests: TimedRequest) -> None:
            self.drawn = requests

        def requests(self, context: WorkloadContext) -> Any:
            return iter(self.drawn)

    context = WorkloadContext(tokenizer=None, vocab_size=9, max_model_len=99, seed=0, needs_token_ids=False)
    first = TimedRequest(prompt_token_ids=[1])
    for request, message in (
        (TimedRequest(prompt_token_ids=[1], after=1), "request 1 follows request 1, which is not one before it"),
        (TimedRequest(prompt_token_ids=[1], after=0, delay_s=-1), "delay_s=-1 of request 1 must be at least 0"),
        (TimedRequest(prompt_keys=[1], num_prompt_tokens=5, after=0), "both must have prompt_token_ids"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(Fixed(first, request), context)
    keyed = TimedRequest(prompt_keys=[1], num_prompt_tokens=5)
    with pytest.raises(ValueError, match="both must have prompt_token_ids"):
        prepare(Fixed(keyed, TimedRequest(prompt_token_ids=[1], after=0)), context)


def test_a_real_engine_finds_each_conversation_in_its_cache(tmp_path: Path) -> None:
    shape = ["num_sessions=4", "rate_per_s=100", "think_time_s=0.02", "tool_time_s=0.005", "output_tokens_max=20"]
    cfg = compose(["tracker=files", "model=tiny", "workload=sessions", *(f"workload.{value}" for value in shape)])
    assert run_cell(cfg, CellInfo(folder=tmp_path, cell_id="x", config={})) == "completed"
    records = read_record(tmp_path).requests
    follow_ups = 0
    for client in {r.client for r in records}:
        calls = sorted((r for r in records if r.client == client), key=lambda r: r.arrival_s)
        for before, after in itertools.pairwise(calls):
            known = before.num_prompt_tokens + before.num_output_tokens
            assert after.num_prompt_tokens > known
            # Every full block of it; the last output token was sampled, and never computed.
            assert after.num_cached_tokens == (known - 1) // 16 * 16
            assert after.arrival_s >= before.finish_s
            follow_ups += 1
    assert follow_ups >= 4
