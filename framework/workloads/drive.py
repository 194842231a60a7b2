"""The open loop: requests enter the engine when they arrive, whatever it is doing.

Requests that follow another one close the loop: they arrive some time after the other has ended. So does a limit on the
number of requests that are in the engine at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from framework.interfaces.clock import Clock
from framework.interfaces.observer import Observer, Output
from framework.interfaces.records import RequestRecord, stated
from framework.interfaces.request import RequestSpec
from framework.interfaces.workload import TimedRequest
from framework.workloads.entry_queue import EntryQueue


class DrivenEngine(Protocol):
    """The methods of an engine that `drive` needs."""

    observers: list[Any]

    @property
    def clock(self) -> Clock: ...
    @property
    def has_work(self) -> bool: ...
    def add_request(self, spec: RequestSpec) -> int: ...
    def step(self) -> Sequence[Output]: ...
    def abort(self, request_id: int) -> Output | None: ...


def drive(
    engine: DrivenEngine,
    requests: Iterable[TimedRequest],
    observers: Sequence[Observer],
    *,
    max_concurrency: int | None = None,
) -> None:
    """Run prepared `requests` to their end, at most `max_concurrency` at once. `observers` hear of everything.

    A request that the engine refuses with ValueError is reported through `on_reject` and the others go on. On
    KeyboardInterrupt the unfinished ones are aborted, so that the observers get the tokens that they have so far.
    Whatever else is raised ends the run.
    """
    live: dict[int, tuple[int, TimedRequest]] = {}
    for observer in observers:
        engine.observers.append(observer)  # for on_step, which the engine calls
    try:
        _loop(engine, EntryQueue(requests, max_concurrency), observers, live)
    except KeyboardInterrupt as interrupt:
        try:
            outputs = [output for request_id in sorted(live) if (output := engine.abort(request_id)) is not None]
            for observer in observers:
                observer.on_outputs(outputs)
        finally:
            # It may have struck in the middle of a plan, where an abort fails: it is the interrupt that counts then.
            raise interrupt
    finally:
        for observer in observers:
            engine.observers.remove(observer)


def _loop(
    engine: DrivenEngine,
    entries: EntryQueue,
    observers: Sequence[Observer],
    live: dict[int, tuple[int, TimedRequest]],
) -> None:
    """`live` holds, by the engine's id, the requests that have not ended, each with its place in the workload."""
    num_rejected = 0
    while (next_s := entries.next_s) is not None or engine.has_work:
        while next_s is not None and next_s <= engine.clock.now_s():
            place, request = entries.pop()
            request_id = _add(engine, request, observers, -1 - num_rejected)
            if request_id is None:
                num_rejected += 1
                entries.refused(place, engine.clock.now_s())
            else:
                live[request_id] = place, request
            next_s = entries.next_s
        if engine.has_work:
            outputs = engine.step()
            for output in outputs:
                if output.finished:
                    place, request = live.pop(output.request_id)
                    if output.finish_reason == "rejected":  # by a router that had held it
                        entries.refused(place, engine.clock.now_s())
                    else:
                        entries.ended(place, request, output)
            for observer in observers:
                observer.on_outputs(outputs)
        elif next_s is not None:
            engine.clock.sleep_until(next_s)


def _add(engine: DrivenEngine, request: TimedRequest, observers: Sequence[Observer], rejected_id: int) -> int | None:
    """The engine's id of the request; None if it was refused."""
    error = request.error
    if not error:
        try:
            request_id = engine.add_request(request)
        except ValueError as refusal:
            error = str(refusal)
    if not error:
        for observer in observers:
            observer.on_request(request_id, request)
        return request_id
    if request.origin:
        error = f"{request.origin}: {error}"
    record = RequestRecord(
        request_id=rejected_id,
        arrival_s=request.arrival_s,
        scheduled_s=None,
        first_token_s=None,
        finish_s=engine.clock.now_s(),
        num_prompt_tokens=request.num_prompt_tokens or len(request.prompt_token_ids or ()),
        num_output_tokens=0,
        num_cached_tokens=0,
        num_preemptions=0,
        finish_reason="rejected",
        error=error,
        **stated(request),
    )
    for observer in observers:
        observer.on_reject(record, request)
    return None
