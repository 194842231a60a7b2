"""Runs a random trace with plugins by name; the traces are those of `framework.conformance`."""

from __future__ import annotations

from framework.conformance.kit.serve import serve
from framework.conformance.kit.traces import Trace, traces
from framework.engine.output import RequestOutput
from framework.interfaces.eviction import EvictionPolicy
from framework.interfaces.scheduler import Scheduler
from framework.registry import EVICTIONS, SCHEDULERS
from framework.registry.discovery import discover

__all__ = ["Trace", "all_evictions", "all_schedulers", "build_eviction", "build_scheduler", "run_trace", "traces"]

discover()


def all_schedulers() -> list[str]:
    return SCHEDULERS.names()


def all_evictions() -> list[str]:
    return EVICTIONS.names()


def build_scheduler(name: str, seed: int = 0) -> Scheduler:
    return SCHEDULERS.get(name)(**({"seed": seed} if name == "random" else {}))


def build_eviction(name: str) -> EvictionPolicy:
    return EVICTIONS.get(name)()


def run_trace(trace: Trace, *, scheduler: str, eviction: str, overlap: int, seed: int = 0) -> dict[int, RequestOutput]:
    """Serve the whole trace; raises when an invariant does not hold or a request does not get exactly its tokens."""
    return serve(trace, build_scheduler(scheduler, seed), build_eviction(eviction), overlap=overlap).outputs
