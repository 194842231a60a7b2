"""Tells an eviction policy that needs it which blocks the requests of a run will look for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from framework.engine.engine import Engine
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.sampling_params import SamplingParams


def tell_future(engine: Engine, prompts: Iterable[Sequence[int]]) -> None:
    """Announce the prompts of all requests that `engine` will be given, in that order; before the first of them.

    Nothing happens for a policy without foresight. A prompt that the engine will refuse looks for nothing.
    """
    policy = engine.cache.policy
    if isinstance(policy, NeedsFuture):
        policy.on_future([_hashes(engine, number, prompt) for number, prompt in enumerate(prompts)])


def _hashes(engine: Engine, number: int, prompt: Sequence[int]) -> list[int]:
    try:
        request = engine.intake.build(
            number,
            prompt=None,
            prompt_token_ids=prompt,
            params=SamplingParams(),
            arrival_s=0.0,
        )
    except ValueError:
        return []
    return engine.cache.prompt_path(request)
