"""Several engines on one virtual time: a fleet serves one workload in one simulation, through a router."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from framework.engine.blame import blaming
from framework.engine.engine import Engine, StepObserver
from framework.engine.output import RequestOutput
from framework.interfaces.errors import PluginError
from framework.interfaces.records import StepRecord
from framework.interfaces.request import RequestSpec
from framework.interfaces.router import Router


@dataclass(slots=True)
class Replica:
    """An engine and what the router knows of it (a `ReplicaView`)."""

    index: int
    engine: Engine
    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_sent: int = 0
    """The number of requests routed to it since start."""
    ended: deque[tuple[float, int]] = field(default_factory=deque)
    """End and prompt tokens of requests that the router does not know to have ended yet, in order of their end."""

    @property
    def num_blocks(self) -> int:
        return len(self.engine.cache.blocks)

    def settle(self, now_s: float) -> None:
        """Let the router know what has ended by `now_s`."""
        while self.ended and self.ended[0][0] <= now_s:
            self.num_requests -= 1
            self.num_prompt_tokens -= self.ended.popleft()[1]


class Fleet:
    """Several engines with the calls of one, for `drive`. A request goes to one replica and stays there.

    Each engine has its own clock and is stepped when no other engine with work is further behind. The fleet's time is
    that of the engine furthest behind. A step returns when it ends, so an engine may be one step ahead of a request
    that arrives. The request is then planned from the next step on, as in a real engine, and the router is told nothing
    of the step that ran ahead.
    """

    def __init__(self, engines: Sequence[Engine], router: Router) -> None:
        assert len({id(engine.clock) for engine in engines}) == len(engines), "each replica needs a clock of its own"
        self.replicas = [Replica(index, engine) for index, engine in enumerate(engines)]
        self.router = router
        self.clock = FleetClock(self.replicas)
        self.observers: list[StepObserver] = []
        self._owners: dict[int, Replica] = {}
        self._next_id = 0
        for replica in self.replicas:
            replica.engine.observers.append(_Tagger(replica.index, self.observers))

    @property
    def engines(self) -> list[Engine]:
        return [replica.engine for replica in self.replicas]

    @property
    def has_work(self) -> bool:
        return any(replica.engine.has_work for replica in self.replicas)

    def add_request(self, spec: RequestSpec) -> int:
        """As `Engine.add_request`; ids count up over all replicas. Arrivals must come in order of time.

        Raises:
            ValueError: naming the value, the limit and the remedy; nothing else is disturbed.
            PluginError: the router named a replica that does not exist.
        """
        request_id = self._next_id
        self._next_id += 1
        now_s = self.clock.now_s() if spec.arrival_s is None else spec.arrival_s
        first = self.replicas[0].engine
        built = first.intake.build(request_id, spec, arrival_s=now_s)  # alike in every replica
        for replica in self.replicas:
            replica.settle(now_s)
        with blaming():
            index = self.router.route(built, first.cache.prompt_path(built), self.replicas)
        if index not in range(len(self.replicas)):
            raise PluginError(
                f"router {type(self.router).__name__} sent request {request_id} to replica {index!r}; there are "
                f"0 to {len(self.replicas) - 1}"
            )
        replica = self._owners[request_id] = self.replicas[index]
        replica.num_requests += 1
        replica.num_prompt_tokens += built.num_prompt
        replica.num_sent += 1
        if not replica.engine.has_work:
            replica.engine.clock.sleep_until(now_s)
        replica.engine.enqueue(built)
        return request_id

    def step(self) -> list[RequestOutput]:
        """One step of the engine that is furthest behind, the first of several."""
        replica = min(
            (replica for replica in self.replicas if replica.engine.has_work),
            key=lambda replica: replica.engine.clock.now_s(),
        )
        return self._take(replica, replica.engine.step())

    def abort(self, request_id: int) -> RequestOutput | None:
        """As `Engine.abort`."""
        replica = self._owners.get(request_id)
        if replica is None:
            return None
        output = replica.engine.abort(request_id)
        return None if output is None else self._take(replica, [output])[0]

    def close(self) -> None:
        for replica in self.replicas:
            replica.engine.close()

    def effective(self) -> dict[str, object]:
        """For the record: how many requests each replica was sent."""
        return {"requests_of_replicas": [replica.num_sent for replica in self.replicas]}

    def _take(self, replica: Replica, outputs: list[RequestOutput]) -> list[RequestOutput]:
        for output in outputs:
            if output.record is not None:
                output.record.replica = replica.index
                replica.ended.append((output.record.finish_s, output.record.num_prompt_tokens))
                del self._owners[output.request_id]
        return outputs


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

    def __init__(self, index: int, observers: list[StepObserver]) -> None:
        self._index, self._observers = index, observers

    def on_step(self, record: StepRecord) -> None:
        record.replica = self._index
        for observer in self._observers:
            observer.on_step(record)
