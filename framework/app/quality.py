"""Scores what a cell's model produces, after its run: its answers and, if attention is not exact, fixed prompts."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from contextlib import closing

from framework.engine.engine import Engine
from framework.execution.built import BuiltEngine
from framework.interfaces.executor import TokenLogprobs
from framework.interfaces.observer import Observer, Output
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.scheduler import Queue, Scheduler, StepPlan
from framework.interfaces.workload import TimedRequest
from framework.records.metrics.quality import kl_nats, perplexity
from framework.records.metrics.summary import COMPLETED, Metrics
from framework.registry import EVICTIONS, SCHEDULERS

NUM_ANSWERS = 256
_NUM_DECODED = 128
_MAX_PROMPT_TOKENS, _MAX_TEXT_TOKENS = 2048, 4096
_NUM_EXACT, _NUM_OTHER = 64, 256
"""Tokens per position by which distributions are compared. Less likely ones of the exact one are one bin."""


class AnswerSample(Observer):
    """Keeps the first answers that completed, with their prompts."""

    def __init__(self) -> None:
        self.answers: list[tuple[TimedRequest, list[int]]] = []
        self._asked: dict[int, TimedRequest] = {}

    def on_request(self, request_id: int, request: TimedRequest) -> None:
        if len(self._asked) < NUM_ANSWERS:
            self._asked[request_id] = request

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            asked = self._asked.get(output.request_id) if output.finished else None
            if asked is not None and output.finish_reason in COMPLETED and output.token_ids:
                self.answers.append((asked, output.token_ids))


def answer_quality(built: BuiltEngine, sample: AnswerSample, scored_tokens: int) -> Metrics:
    """The mean log-probability per token of some answers.

    Those are taken while they have, prompts included, no more than `scored_tokens` tokens.
    """
    metrics: Metrics = {}
    prompts, starts, left = [], [], scored_tokens
    for request, token_ids in sample.answers:
        given = request.prompt_token_ids
        if given is None and request.prompt is not None and built.tokenizer is not None:
            given = built.tokenizer.encode(request.prompt)
        ids = [*(given or ()), *token_ids][: built.max_model_len - 1]
        if given and len(given) < len(ids) <= left:
            left -= len(ids)
            prompts.append(ids)
            starts.append(len(given) - 1)  # the entries begin with the second token
    if prompts:
        scored = _score(built, prompts, 0, lambda: SCHEDULERS.build({"name": "chunked_prefill"}))
        of_answers = [entry.logprob for one, start in zip(scored, starts, strict=True) for entry in one[start:]]
        if of_answers:
            metrics["answer_logprob"] = sum(of_answers) / len(of_answers)
    return metrics


def attention_quality(built: BuiltEngine, rebuild: Callable[[], BuiltEngine], longest: int) -> Metrics:
    """Perplexity of fixed prompts under the attention of `built` and under exact attention, and their divergence.

    Half of each prompt is a chunk and up to 128 tokens are decode rows, since backends treat them differently.

    Args:
        built: is closed, since one device may not hold two models.
        rebuild: builds the same engine with exact attention.
        longest: tokens of the cell's longest request, which the prompts are as long as, up to 2,048.
    """
    prompts = _fixed_prompts(built, longest)
    other = _score(built, prompts, _NUM_OTHER, _ChunkThenTokens)
    built.engine.close()
    exact_built = rebuild()
    with closing(exact_built.engine):
        exact = _score(exact_built, prompts, _NUM_EXACT, _ChunkThenTokens)
    pairs = [(p, q) for ps, qs in zip(exact, other, strict=True) for p, q in zip(ps, qs, strict=True)]
    return {
        "perplexity": perplexity([q.logprob for _, q in pairs]),
        "perplexity_exact": perplexity([p.logprob for p, _ in pairs]),
        "kl_exact_nats": sum(kl_nats(p, q) for p, q in pairs) / len(pairs),
    }


class _ChunkThenTokens(Scheduler):
    """The first part of a prompt as chunks, its last tokens one by one."""

    def schedule(self, queue: Queue, plan: StepPlan) -> None:
        for request in [*queue.running, *queue.waiting]:
            begun = request.num_prompt - min(_NUM_DECODED, request.num_prompt // 2)
            plan.add(request, max(1, begun - request.num_computed))


def _score(
    built: BuiltEngine, prompts: Sequence[list[int]], num_top: int, scheduler: Callable[[], Scheduler]
) -> list[list[TokenLogprobs]]:
    """Log-probabilities of each prompt's tokens from the second on, from an engine of its own around the executor."""
    used = built.single_engine
    config = dataclasses.replace(used.config, overlap=0, prefix_caching=False)
    engine = Engine(scheduler(), EVICTIONS.build({"name": "lru"}), used.executor, used.intake, config)
    params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, prompt_logprobs=num_top)
    if used.intake.refuses(params) is not None:  # by a sampler that only draws
        params = dataclasses.replace(params, temperature=1.0)
    found: dict[int, list[TokenLogprobs]] = {}
    for ids in prompts:
        engine.add_request(RequestSpec(prompt_token_ids=ids, params=params))
    while engine.has_work:
        for output in engine.step():
            if output.error is not None:
                raise output.error
            found[output.request_id] = output.prompt_logprobs or []
    if not used.has_work:
        used.reset()  # its prefix cache would find blocks that now hold other content
    return [found[number] for number in range(len(prompts))]


def _fixed_prompts(built: BuiltEngine, longest: int) -> list[list[int]]:
    """One to four prompts, the same for equal models and lengths."""
    engine = built.single_engine
    room = min(_MAX_TEXT_TOKENS, engine.executor.num_blocks * engine.config.block_size)
    length = min(max(256, longest), _MAX_PROMPT_TOKENS, built.max_model_len - 1, room - 1)
    count = min(4, room // (length + 1), engine.config.max_num_seqs)
    return [_prompt(built, number, length) for number in range(count)]


def _prompt(built: BuiltEngine, number: int, length: int) -> list[int]:
    if built.tokenizer is None:
        draw = random.Random(number)
        return [draw.randrange(built.model_config.vocab_size) for _ in range(length)]
    ids: list[int] = built.tokenizer.encode(_report(number, length))
    assert len(ids) >= length, "every sentence has more tokens than the number of sentences asks for"
    return ids[:length]


def _report(number: int, num_sentences: int) -> str:
    """English of a kind that refers back, so that what an approximation forgets becomes improbable."""
    draw = random.Random(number)
    gates = ("north", "south", "east", "west", "river", "harbour")
    goods = ("carts of grain", "barrels of oil", "bales of wool", "crates of fruit", "loads of timber", "sacks of salt")
    weather = ("rain", "fog", "a clear sky", "strong wind", "snow", "heat")
    keepers = dict(zip(gates, draw.sample(("Anna", "Bruno", "Clara", "David", "Emma", "Felix"), 6), strict=True))
    seen: list[tuple[int, str, int, str]] = []
    sentences = []
    for day in range(1, num_sentences + 1):
        gate, good, count = draw.choice(gates), draw.choice(goods), draw.randint(2, 90)
        sentences.append(
            f"On day {day}, under {draw.choice(weather)}, {keepers[gate]} counted {count} {good} at the {gate} gate."
        )
        if seen and draw.random() < 0.5:
            day_before, gate, count, good = draw.choice(seen)
            sentences.append(f"On day {day_before}, {keepers[gate]} had counted {count} {good} at the {gate} gate.")
        seen.append((day, gate, count, good))
    return " ".join(sentences)
