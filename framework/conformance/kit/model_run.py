"""Runs the same requests through the real engine and a two-layer model with two choices of one plugin."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

from framework.config.compose import compose
from framework.config.settings import PluginChoice, settings_of
from framework.conformance.kit.finding import Violation
from framework.conformance.kit.time_limit import TimeLimitError, time_limit
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.workloads.future import announce

REFERENCE = {"scheduler": "chunked_prefill", "eviction": "lru"}
_MACHINE = (
    "scheduler=chunked_prefill",
    "eviction=lru",
    "predictor=histogram",
    "model=tiny",
    "executor.device=cpu",
    "executor.dtype=float32",
    "executor.threads=1",
    "engine.max_model_len=96",
    "engine.num_blocks=24",
    "engine.block_size=8",
    "engine.max_num_seqs=6",
    "engine.max_num_batched_tokens=48",
)
_LIMIT_S = 20.0


def same_tokens(kind: str, choice: Mapping[Any, Any]) -> str:
    """Serve requests that do not fit into the cache together, with the plugin of `choice` and with the reference.

    Raises:
        Violation: a request gets other tokens, or the engine does not come to an end.
    """
    rule = f"same tokens as {REFERENCE[kind]} on a model"
    want, got = _reference(), _tokens(kind, choice, rule)
    for number, (one, other) in enumerate(zip(want, got, strict=True)):
        if one != other:
            raise Violation(rule, f"request {number} got {other}, and with {REFERENCE[kind]} {one}")
    return f"{len(want)} requests in fp32 on the CPU, half of them sampled, in a cache that holds two of them"


@cache
def _reference() -> tuple[tuple[int, ...], ...]:
    return _tokens("", None, "the reference runs")


def _tokens(kind: str, plugin: Mapping[Any, Any] | None, rule: str) -> tuple[tuple[int, ...], ...]:
    from framework.execution.build import build_engine

    cfg = settings_of(compose(_MACHINE))
    if plugin is not None:
        setattr(cfg, kind, PluginChoice(plugin))
    engine = build_engine(cfg).single_engine
    requests = _requests()
    outputs: dict[int, list[int]] = {}
    try:
        announce(engine, (RequestSpec(prompt_token_ids=prompt) for prompt, _ in requests))
        for prompt, params in requests:
            engine.add_request(RequestSpec(prompt_token_ids=prompt, params=params))
        with time_limit(_LIMIT_S):
            while engine.has_work:
                for output in engine.step():
                    if output.finished:
                        outputs[output.request_id] = output.token_ids
    except TimeLimitError as error:
        raise Violation(rule, f"{len(requests)} requests {error}; {len(outputs)} of them ended") from error
    finally:
        engine.close()
    return tuple(tuple(outputs[number]) for number in range(len(requests)))


def _requests() -> list[tuple[list[int], SamplingParams]]:
    """Prompts, half of which begin alike, and half of them sampled."""
    draw = random.Random(3)
    shared = [draw.randrange(256) for _ in range(20)]
    requests = []
    for number in range(10):
        prompt = shared[: 20 * (number % 2)] + [draw.randrange(256) for _ in range(draw.randint(1, 40))]
        temperature, max_tokens = 0.8 if number % 2 else 0.0, draw.randint(4, 30)
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=temperature, seed=number)
        requests.append((prompt, params))
    return requests
