"""Tells an eviction policy that needs it which blocks the requests of a run will look for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from framework.engine.engine import Engine
from framework.engine.fleet import Fleet
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.request import RequestSpec
from framework.interfaces.sampling_params import SamplingParams
from framework.interfaces.workload import TimedRequest


def tell_future(engine: Engine | Fleet, requests: Sequence[TimedRequest]) -> None:
    """Announce the prepared requests of a run to a policy that needs the future, before the first of them runs.

    Raises:
        IncompatibleError: there is such a policy, but the requests depend on the run itself.
    """
    policies = [one.cache.policy for one in ([engine] if isinstance(engine, Engine) else engine.engines)]
    if not any(isinstance(policy, NeedsFuture) for policy in policies):
        return
    needs = f"eviction policy {type(policies[0]).__name__} needs to know the future"
    if not isinstance(engine, Engine):
        raise IncompatibleError(f"{needs}, and a router decides as it goes; set executor.replicas=1")
    if any(request.after is not None for request in requests):
        raise IncompatibleError(
            f"{needs}, and here some prompts continue answers that are not known yet; choose a workload whose prompts "
            f"are, or another eviction policy"
        )
    announce(engine, (request for request in requests if not request.error))


def announce(engine: Engine, specs: Iterable[RequestSpec]) -> None:
    """Announce requests in the order in which they will be added. One that the engine will refuse looks for nothing."""
    policy = engine.cache.policy
    if isinstance(policy, NeedsFuture):
        policy.on_future([_blocks(engine, number, spec) for number, spec in enumerate(specs)])


def _blocks(engine: Engine, number: int, spec: RequestSpec) -> list[int]:
    try:
        request = engine.intake.build(number, replace(spec, params=SamplingParams(), streams=False), arrival_s=0.0)
    except ValueError:
        return []
    return engine.cache.prompt_path(request)
