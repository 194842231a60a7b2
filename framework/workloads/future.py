"""Tells an eviction policy that needs it which blocks the requests of a run will look for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from framework.engine.engine import Engine
from framework.engine.fleet import Fleet
from framework.errors import IncompatibleError
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.sampling_params import SamplingParams
from framework.workloads.base import TimedRequest


def tell_workload(engine: Engine | Fleet, requests: Sequence[TimedRequest]) -> None:
    """Announce the requests that `drive` will give to `engine`; before the first of them.

    Nothing happens for a policy without foresight.

    Raises:
        IncompatibleError: the policy needs a future that only the run decides.
    """
    policies = [r.engine.cache.policy for r in engine.replicas] if isinstance(engine, Fleet) else [engine.cache.policy]
    if not isinstance(policies[0], NeedsFuture):
        return
    needs = f"eviction policy {type(policies[0]).__name__} has to know all requests beforehand"
    if isinstance(engine, Fleet):
        raise IncompatibleError(f"{needs}, but a router decides which replica serves them; set executor.replicas=1")
    if any(request.after is not None for request in requests):
        raise IncompatibleError(f"{needs}, but turns of a session follow answers; choose an open-loop workload")
    _tell(engine, policies[0], [_prompt(request) for request in requests if not request.error])


def tell_future(engine: Engine, prompts: Iterable[Sequence[int]]) -> None:
    """As `tell_workload`, for callers that add requests themselves: the prompts of all of them, in that order.

    A prompt that the engine will refuse looks for nothing.
    """
    policy = engine.cache.policy
    if isinstance(policy, NeedsFuture):
        _tell(engine, policy, [{"prompt_token_ids": prompt} for prompt in prompts])


def _prompt(request: TimedRequest) -> dict[str, Any]:
    if request.prompt_keys is None:
        return {"prompt_token_ids": request.prompt_token_ids}
    names = ("prompt_keys", "num_prompt_tokens", "key_tokens")
    return {name: getattr(request, name) for name in names}


def _tell(engine: Engine, policy: NeedsFuture, prompts: Iterable[dict[str, Any]]) -> None:
    policy.on_future([_hashes(engine, number, prompt) for number, prompt in enumerate(prompts)])


def _hashes(engine: Engine, number: int, prompt: dict[str, Any]) -> list[int]:
    try:
        request = engine.intake.build(number, **prompt, params=SamplingParams(), arrival_s=0.0)
    except ValueError:
        return []
    return engine.cache.prompt_path(request)
