"""Tells an eviction policy that needs it which blocks the requests of a run will look for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from framework.engine.engine import Engine
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.sampling_params import SamplingParams
from framework.workloads.base import TimedRequest


def tell_future(engine: Engine, prompts: Iterable[Sequence[int]]) -> None:
    """Announce the prompts of all requests that `engine` will be given, in that order; before the first of them.

    Nothing happens for a policy without foresight. A prompt that the engine will refuse looks for nothing.
    """
    _announce(engine, ({"prompt_token_ids": prompt} for prompt in prompts))


def tell_workload(engine: Engine, requests: Iterable[TimedRequest]) -> None:
    """As `tell_future`, for prepared requests, whose prompts may be given by keys."""
    _announce(
        engine,
        (
            {
                "prompt_token_ids": request.prompt_token_ids,
                "num_prompt_tokens": request.num_prompt_tokens,
                "prompt_keys": request.prompt_keys,
                "key_tokens": request.key_tokens,
            }
            for request in requests
            if not request.error
        ),
    )


def _announce(engine: Engine, prompts: Iterable[dict[str, Any]]) -> None:
    policy = engine.cache.policy
    if isinstance(policy, NeedsFuture):
        policy.on_future([_hashes(engine, number, prompt) for number, prompt in enumerate(prompts)])


def _hashes(engine: Engine, number: int, prompt: dict[str, Any]) -> list[int]:
    try:
        request = engine.intake.build(
            number, prompt=None, params=SamplingParams(), arrival_s=0.0, **{"prompt_token_ids": None, **prompt}
        )
    except ValueError:
        return []
    return engine.cache.prompt_path(request)
