"""Two ranks give the tokens of one, whatever is scheduled, cached, preempted or sampled. Two starts in all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from framework.app.llm import LLM
from framework.engine.config import EngineConfig
from framework.engine.engine import Engine
from framework.engine.output import RequestOutput
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.registry import EVICTIONS, SCHEDULERS

MODELS = {
    "split_kv": ("gumbel", []),  # samples where the logits are
    "replicated_kv": ("full", ["model.config.num_key_value_heads=1", "model.config.vocab_size=523"]),  # gathers them
}
MAX_TOKENS = 10
PREEMPTING_BLOCKS = 26


def make_prompts() -> list[list[int]]:
    draw = random.Random(3)
    shared = [draw.randrange(250) for _ in range(24)]
    return [(shared if i % 2 else []) + [draw.randrange(250) for _ in range(draw.randint(1, 30))] for i in range(8)]


PROMPTS = make_prompts()


def params(sampler: str, temperature: float) -> list[SamplingParams]:
    """One per prompt, each with its own seed; some want log-probabilities, and with `full` some have penalties."""
    result = []
    for i in range(len(PROMPTS)):
        extra: dict[str, Any] = {"logprobs": 3} if i % 3 == 0 else {}
        if i % 3 == 1:
            extra["prompt_logprobs"] = 2
        if sampler == "full" and i % 4 == 1:
            extra |= {"repetition_penalty": 1.3, "presence_penalty": 0.4}
        result.append(
            SamplingParams(temperature=temperature, max_tokens=MAX_TOKENS, ignore_eos=True, seed=40 + i, **extra)
        )
    return result


@dataclass
class Pair:
    sampler: str
    two: LLM
    expected: dict[float, list[RequestOutput]]


def start(model: str, tp: int) -> LLM:
    sampler, overrides = MODELS[model]
    return LLM("tiny", tp=tp, sampler=sampler, max_num_seqs=6, block_size=4, num_blocks=256, overrides=overrides)


def run(llm: LLM, asked: list[SamplingParams], **settings: Any) -> list[RequestOutput]:
    """All prompts through a new engine around `llm`'s executor."""
    executor = llm.engine.executor  # type: ignore[union-attr]
    kept = executor.num_blocks
    executor.num_blocks = settings.pop("num_blocks", kept)
    try:
        engine = Engine(
            SCHEDULERS.build({"name": settings.pop("scheduler", "chunked_prefill")}),
            EVICTIONS.build({"name": "lru"}),
            executor,
            llm.engine.intake,  # type: ignore[union-attr]
            EngineConfig(
                block_size=4,
                max_num_seqs=6,
                max_num_batched_tokens=settings.pop("max_num_batched_tokens", 256),
                **settings,
            ),
        )
        for prompt, one in zip(PROMPTS, asked, strict=True):
            engine.add_request(RequestSpec(prompt_token_ids=prompt, params=one))
        ended: list[RequestOutput] = []
        while engine.has_work:
            ended += [output for output in engine.step() if output.finished]
    finally:
        executor.num_blocks = kept
    return sorted(ended, key=lambda output: output.request_id)


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    sampler, _ = MODELS[request.param]
    with start(request.param, 1) as one:
        expected = {temperature: run(one, params(sampler, temperature)) for temperature in (0.0, 0.9)}
    with start(request.param, 2) as two:
        yield Pair(sampler, two, expected)


def check(pair: Pair, temperature: float, **settings: Any) -> list[RequestOutput]:
    got = run(pair.two, params(pair.sampler, temperature), **settings)
    for mine, theirs in zip(got, pair.expected[temperature], strict=True):
        assert mine.token_ids == theirs.token_ids
        assert (mine.logprobs is None) == (theirs.logprobs is None)
        for one, other in zip(mine.logprobs or [], theirs.logprobs or [], strict=True):
            assert one.token_id == other.token_id
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in one.top] == [token for token, _ in other.top]
        assert (mine.prompt_logprobs is None) == (theirs.prompt_logprobs is None)
        for one, other in zip(mine.prompt_logprobs or [], theirs.prompt_logprobs or [], strict=True):
            assert (one.token_id, one.rank) == (other.token_id, other.rank)
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    return got


@pytest.mark.parametrize(
    ("scheduler", "prefix_caching", "overlap"),
    list(itertools.product(["chunked_prefill", "prefill_first"], [True, False], [0, 1])),
)
def test_greedy_tokens_are_those_of_one_rank(pair: Pair, scheduler: str, prefix_caching: bool, overlap: int) -> None:
    got = check(
        pair, 0.0, scheduler=scheduler, prefix_caching=prefix_caching, overlap=overlap, max_num_batched_tokens=32
    )
    assert (sum(output.record.num_cached_tokens for output in got if output.record) > 0) == prefix_caching


@pytest.mark.parametrize("scheduler", ["chunked_prefill", "prefill_first"])
def test_preemption_changes_nothing(pair: Pair, scheduler: str) -> None:
    got = check(pair, 0.0, scheduler=scheduler, num_blocks=PREEMPTING_BLOCKS)
    assert sum(output.record.num_preemptions for output in got if output.record) > 0


@pytest.mark.parametrize("overlap", [0, 1])
def test_seeded_draws_are_those_of_one_rank(pair: Pair, overlap: int) -> None:
    assert [one.token_ids for one in pair.expected[0.9]] != [one.token_ids for one in pair.expected[0.0]]
    check(pair, 0.9, overlap=overlap)


def test_the_record_says_how_the_ranks_work_together(pair: Pair) -> None:
    effective = pair.two.effective
    assert (effective["tp"], effective["allreduce"], effective["plan_transport"]) == (2, "gloo", "shared_memory")
    assert effective["ranks"] == [{"device": "cpu", "threads": effective["threads"], "allreduce": "gloo"}]
