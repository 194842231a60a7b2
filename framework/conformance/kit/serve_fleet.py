"""Serves a trace with a fleet of engines on shadow memories, and says which rule its router broke."""

from __future__ import annotations

import traceback

from framework.conformance.kit import serve as rules
from framework.conformance.kit.finding import Violation
from framework.conformance.kit.shadow import make_engine
from framework.conformance.kit.time_limit import TimeLimitError, time_limit
from framework.conformance.kit.traces import Trace
from framework.conformance.kit.watched_router import WatchedRouter
from framework.engine.fleet import Fleet
from framework.interfaces.errors import PluginError
from framework.interfaces.router import Router
from framework.registry import EVICTIONS, SCHEDULERS

_LIMIT_S = 4.0


def serve_fleet(trace: Trace, num_replicas: int, router: Router) -> list[int]:
    """The replica of each request of `trace`, which `num_replicas` equal engines serve to its end.

    Raises:
        Violation: the first rule that breaks, with the fleet and the trace.
    """
    engines = [
        make_engine(
            SCHEDULERS.get("chunked_prefill")(),
            EVICTIONS.get("lru")(),
            num_blocks=trace.num_blocks,
            block_size=trace.block_size,
            max_num_seqs=trace.max_num_seqs,
            max_num_batched_tokens=trace.max_num_batched_tokens,
            prefix_caching=trace.prefix_caching,
            eos_after=trace.eos_after,
            voices=trace.voices,
        )
        for _ in range(num_replicas)
    ]
    watched = WatchedRouter(router)
    fleet = Fleet(engines, watched)
    try:
        with time_limit(_LIMIT_S):
            _run(fleet, trace)
    except Exception as error:
        broken = _violation(error)
        machine = f"{num_replicas} replicas, each with a\n{trace.describe()}"
        raise Violation(broken.rule, f"{broken.message}\n{machine}") from error
    return watched.choices


def _run(fleet: Fleet, trace: Trace) -> None:
    arrivals, num_ended = list(trace.requests), 0
    while arrivals or fleet.has_work:
        while arrivals and arrivals[0].arrival_s <= fleet.clock.now_s():
            rules.arrive(fleet, arrivals.pop(0))
        if fleet.has_work:
            num_ended += sum(output.finished for output in fleet.step())
        elif arrivals:
            fleet.clock.sleep_until(arrivals[0].arrival_s)
    assert num_ended == len(trace.requests), "the engines end every request"


def _violation(error: Exception) -> Violation:
    """Which rule `error` is about. The fleet wraps what comes out of a router into an error that names it."""
    cause = error.__cause__ if isinstance(error, PluginError) and isinstance(error.__cause__, Exception) else error
    if isinstance(cause, Violation):
        return cause
    frame = traceback.extract_tb(cause.__traceback__)[-1]
    text = "".join(traceback.format_exception_only(cause)).strip()
    rule = rules.ENDS if isinstance(cause, TimeLimitError) else rules.RAISES
    return Violation(rule, f"{text} ({frame.filename}:{frame.lineno}, {frame.line})")
