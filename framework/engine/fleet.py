"""Several engines on one virtual time: a fleet serves one workload in one simulation, through a router."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from framework.engine.blame import blaming
from framework.engine.ending import REJECTED, last_output
from framework.engine.engine import Engine, StepObserver
from framework.engine.output import RequestOutput
from framework.engine.replica import Ended, Replica
from framework.engine.request import Request
from framework.interfaces.errors import PluginError, RefusedError, StuckError
from framework.interfaces.records import StepRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.router import Arrival, Hold, Refuse, Router


@dataclass(slots=True, eq=False)
class _AtGateway:
    """A request that no replica has yet."""

    request: Request
    output_tokens: int | None
    arrival: Arrival
    path: tuple[int, ...]
    reasons: list[str]
    """For which it was held."""


class Fleet:
    """The same calls as an engine, for `drive`: a request goes to one replica for good, once its router lets it.

    Each engine keeps a clock of its own and is stepped when no other one with work is further behind; the fleet's time
    is that of the engine furthest behind. A step returns when it ends, so an engine may be ahead by one step of a
    request that arrives: it is planned from then on, as in a real engine, and the router is told nothing of that step
    (but that the prefix cache, unless `staleness_s` is above 0, shows the blocks that the step completes).
    """

    def __init__(
        self, engines: Sequence[Engine], router: Router, *, hardware: str = "", staleness_s: float = 0.0
    ) -> None:
        assert len({id(engine.clock) for engine in engines}) == len(engines), "each replica needs a clock of its own"
        asks = router.asks_cached_blocks
        self.replicas = [Replica(index, engine, hardware, staleness_s, asks) for index, engine in enumerate(engines)]
        self.router = router
        self.clock = FleetClock(self.replicas)
        self.observers: list[StepObserver] = []
        self._owners: dict[int, tuple[Replica, Arrival]] = {}
        self._held: dict[int, _AtGateway] = {}
        self._next_id = 0
        self._num_held: Counter[str] = Counter()
        self._num_refused: Counter[str] = Counter()
        self._hears_steps = type(router).on_step is not Router.on_step
        self._hears_ends = type(router).on_finish is not Router.on_finish
        for replica in self.replicas:
            replica.engine.observers.append(_Tagger(replica, self.observers))

    @property
    def engines(self) -> list[Engine]:
        return [replica.engine for replica in self.replicas]

    @property
    def has_work(self) -> bool:
        return bool(self._held) or self._is_busy

    @property
    def _is_busy(self) -> bool:
        return any(replica.engine.has_work for replica in self.replicas)

    def add_request(self, spec: RequestSpec) -> int:
        """As `Engine.add_request`; ids count up over all replicas. Arrivals must come in order of time.

        Raises:
            ValueError: naming the value, the limit and the remedy; nothing else is disturbed.
            RefusedError: the router refuses it.
            PluginError: if the router names a replica that does not exist.
        """
        request_id = self._next_id
        self._next_id += 1
        now_s = self.clock.now_s() if spec.arrival_s is None else spec.arrival_s
        first = self.replicas[0].engine
        built = first.intake.build(request_id, spec, arrival_s=now_s)  # alike in every replica
        path = tuple(first.cache.prompt_path(built))
        one = _AtGateway(built, spec.output_tokens, _arrival(built), path, [])
        refusal = self._decide(one, now_s)
        if refusal is not None:
            raise RefusedError(refusal)
        return request_id

    def step(self) -> list[RequestOutput]:
        """One step of the engine that is furthest behind, the first of several; held requests are asked for before it.

        Raises:
            StuckError: the router holds requests, and nothing runs that could change its mind.
        """
        outputs = self._decide_held() if self._held else []
        if not self._is_busy:
            if self._held and not outputs:
                first = next(iter(self._held.values()))
                raise StuckError(
                    f"router {type(self.router).__name__} holds {len(self._held)} requests while every replica is idle "
                    f"(request {first.request.id} for {first.reasons[-1]!r}): nothing would ever change. "
                    f"Send one, or refuse it"
                )
            return outputs
        replica = min(
            (replica for replica in self.replicas if replica.engine.has_work),
            key=lambda replica: replica.engine.clock.now_s(),
        )
        return outputs + self._take(replica, replica.engine.step())

    def abort(self, request_id: int) -> RequestOutput | None:
        """As `Engine.abort`."""
        held = self._held.pop(request_id, None)
        if held is not None:
            return last_output(held.request, "abort", self.clock.now_s(), new_token_ids=[])
        replica, _ = self._owners.get(request_id, (None, None))
        if replica is None:
            return None
        output = replica.engine.abort(request_id)
        return None if output is None else self._take(replica, [output])[0]

    def close(self) -> None:
        for replica in self.replicas:
            replica.engine.close()

    def effective(self) -> dict[str, object]:
        """For the record: how many requests each replica was sent, and by reason how many were held or refused."""
        counts: dict[str, object] = {"requests_of_replicas": [replica.num_sent for replica in self.replicas]}
        if self._num_held:
            counts["held_by_router"] = dict(self._num_held)
        if self._num_refused:
            counts["refused_by_router"] = dict(self._num_refused)
        return counts

    def _decide(self, one: _AtGateway, now_s: float) -> str | None:
        """Ask the router, and send the request or keep it; why, if it is refused."""
        request, name = one.request, type(self.router).__name__
        self._tell(now_s)
        with blaming():
            views = tuple(replica.view(one.path if replica.reports_cache else ()) for replica in self.replicas)
            choice = self.router.route(one.arrival, one.path, views)
        if isinstance(choice, Hold):
            if choice.reason not in one.reasons:
                one.reasons.append(choice.reason)
                self._num_held[choice.reason] += 1
            self._held[request.id] = one
            return None
        self._held.pop(request.id, None)
        if isinstance(choice, Refuse):
            self._num_refused[choice.reason] += 1
            return f"router {name} refused it: {choice.reason}"
        if choice not in range(len(self.replicas)):
            raise PluginError(
                f"router {name} sent request {request.id} to replica {choice!r}; there are 0 to "
                f"{len(self.replicas) - 1}, and Hold(reason) and Refuse(reason)"
            )
        replica = self.replicas[choice]
        self._owners[request.id] = replica, one.arrival
        replica.send(request, one.output_tokens, now_s)
        return None

    def _decide_held(self) -> list[RequestOutput]:
        """Ask again for each held request, in order of arrival; returns the last outputs of those refused now."""
        now_s = self.clock.now_s()
        outputs = []
        for one in list(self._held.values()):
            refusal = self._decide(one, now_s)
            if refusal is not None:
                error = RefusedError(refusal)
                outputs.append(last_output(one.request, REJECTED, now_s, new_token_ids=[], error=error))
        return outputs

    def _tell(self, now_s: float) -> None:
        """Bring the books and reports up to `now_s`, and tell a router that listens."""
        news: list[Ended] = []
        for replica in self.replicas:
            news += replica.settle(now_s)
            if replica.take_report(now_s) and self._hears_steps:
                with blaming():
                    self.router.on_step(replica.view())
        if self._hears_ends:
            with blaming():
                for ended in sorted(news, key=lambda ended: ended.finish_s):
                    self.router.on_finish(ended.request, ended.replica, ended.num_output)

    def _take(self, replica: Replica, outputs: list[RequestOutput]) -> list[RequestOutput]:
        for output in outputs:
            if output.record is not None:
                output.record.replica = replica.index
                _, arrival = self._owners.pop(output.request_id)
                replica.ended.append(
                    Ended(output.record.finish_s, replica.index, arrival, output.record.num_output_tokens)
                )
        return outputs


def _arrival(request: Request) -> Arrival:
    return Arrival(
        id=request.id,
        arrival_s=request.arrival_s,
        num_prompt=request.num_prompt,
        params=request.params,
        priority=request.priority,
        client=request.client,
        category=request.category,
        deadline_s=request.deadline_s,
        spec=request.spec,
    )


class FleetClock:
    """The time of the engine furthest behind among those with work. If all are idle, that of the one furthest ahead."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = replicas

    def now_s(self) -> float:
        times_s = [replica.engine.clock.now_s() for replica in self._replicas if replica.engine.has_work]
        return min(times_s) if times_s else max(replica.engine.clock.now_s() for replica in self._replicas)

    def sleep_until(self, time_s: float) -> None:
        """Move all idle engines on. An engine that is ahead already stays there."""
        for replica in self._replicas:
            replica.engine.clock.sleep_until(time_s)

    def restart(self) -> None:
        for replica in self._replicas:
            replica.engine.clock.restart()


class _Tagger:
    """Passes a replica's steps on with its number."""

    def __init__(self, replica: Replica, observers: list[StepObserver]) -> None:
        self._replica, self._observers = replica, observers

    def on_step(self, record: StepRecord) -> None:
        record.replica = self._replica.index
        self._replica.step_ended(record.finish_s)
        for observer in self._observers:
            observer.on_step(record)
