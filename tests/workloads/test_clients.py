"""Polite clients and a greedy one: who sends what and when, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from framework.interfaces.workload import TimedRequest, WorkloadContext
from framework.registry import WORKLOADS
from framework.workloads.prepare import prepare


def draw(*, run_seed: int = 0, needs_token_ids: bool = False, **parameters: Any) -> list[TimedRequest]:
    context = WorkloadContext(
        tokenizer=None, vocab_size=1000, max_model_len=8192, seed=run_seed, needs_token_ids=needs_token_ids
    )
    return prepare(WORKLOADS.build({"name": "clients", **parameters}), context)


def test_who_sends_how_much() -> None:
    requests = draw(num_requests=4000, rate_per_s=40, greedy_share=0.25, greedy_priority=3)
    counts = Counter(r.client for r in requests)
    assert counts.pop("greedy") == 1000
    assert sorted(counts) == ["polite 1", "polite 2", "polite 3", "polite 4"]
    assert all(650 < count < 850 for count in counts.values())  # 750 expected, standard deviation 24
    for request in requests:
        greedy = request.client == "greedy"
        assert request.num_prompt_tokens is not None
        assert (2000, 100)[not greedy] <= request.num_prompt_tokens <= (6000, 1000)[not greedy]
        assert (100, 50)[not greedy] <= request.output_tokens <= (400, 300)[not greedy]
        assert request.priority == (3 if greedy else 0)
    polite_s = [r.arrival_s for r in requests if r.client != "greedy"]
    assert polite_s[-1] == pytest.approx(3000 / 30, rel=0.1)  # 30 a second
    assert len(set(polite_s)) == 3000


def test_the_greedy_one_sends_bursts() -> None:
    times = Counter(r.arrival_s for r in draw(num_requests=1000, greedy_burst=30) if r.client == "greedy")
    assert sorted(times.values()) == [20, *[30] * 6]  # 200 requests, the last burst cut short


def test_seeds_and_a_load_without_a_greedy_client() -> None:
    one, again, other = draw(run_seed=1), draw(seed=1), draw(run_seed=2)
    facts = [[(r.arrival_s, r.client, r.num_prompt_tokens, r.output_tokens) for r in d] for d in (one, again, other)]
    assert facts[0] == facts[1] != facts[2]
    assert {r.client for r in draw(greedy_share=0, num_polite=2)} == {"polite 1", "polite 2"}


def test_real_executors_get_tokens_of_these_lengths() -> None:
    simulated, real = draw(num_requests=20), draw(num_requests=20, needs_token_ids=True)
    assert [len(r.prompt_token_ids or ()) for r in real] == [r.num_prompt_tokens for r in simulated]
    assert real[0].prompt_token_ids != real[1].prompt_token_ids


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_requests": 0}, r"workload\.num_requests=0 must be at least 1"),
        ({"rate_per_s": 0}, r"workload\.rate_per_s=0 must be above 0"),
        ({"num_polite": 0}, r"workload\.num_polite=0 must be at least 1"),
        ({"greedy_share": 1}, r"workload\.greedy_share=1 must be in \[0, 1\)"),
        ({"greedy_burst": 0}, r"workload\.greedy_burst=0"),
        ({"prompt_tokens_max": 5}, r"workload\.prompt_tokens_max=5 must be at least prompt_tokens_min=100"),
        ({"greedy_output_tokens_min": 0}, r"workload\.greedy_output_tokens_min=0"),
        ({"temperature": -1}, r"temperature"),
        ({"seed": -1}, r"workload\.seed=-1"),
    ],
)
def test_bad_values(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(**parameters)
