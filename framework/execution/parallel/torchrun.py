"""Ranks that `torchrun` started, on one host or several: rank 0 runs the cells, the others follow it.

    torchrun --nnodes 2 --nproc-per-node 8 ... run.py executor.tp=16 model=...

Each process that runs cells as rank 0 (a sweep may have one per cell) listens on a free port and says so in torchrun's
store, counting up; the others connect to the next one and prove with a token from the store that they belong here.
When it is gone, or a cell failed, they start afresh in the same process and wait for the one after it.
"""

from __future__ import annotations

import functools
import os
import secrets
import signal
import socket
import sys
import time
from typing import Any, NoReturn

import torch
from torch.distributed import PrefixStore, rendezvous

from framework.config.settings import Settings
from framework.execution.parallel.connect import connect
from framework.execution.parallel.control import Channel
from framework.execution.parallel.follow import follow, start_message
from framework.execution.parallel.group_plans import GroupReader, GroupWriter
from framework.execution.parallel.heartbeat import Heartbeat
from framework.execution.parallel.make_group import Joined, join
from framework.execution.parallel.ranks import Ranks
from framework.execution.parallel.watch import Peer, Watch
from framework.execution.parallel.welcome import hello, welcome
from framework.execution.rank.choices import Choices
from framework.interfaces.errors import IncompatibleError, RankError

_COUNT, _ADDRESS, _DONE = "servelab/count", "servelab/rank0/", "servelab/done"
_NUMBER = "SERVELAB_WORLD"
"""Environment variable of a rank above 0: the number of the process that it follows, counted from 1."""
_CONNECT_S = 60.0


def serve() -> int:
    """Be a rank above 0: build and run what rank 0 says until it has no more cells. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 says what Ctrl-C means
    store, number = _store(), int(os.environ.get(_NUMBER, 1))
    while not store.check([f"{_ADDRESS}{number}"]):
        if store.check([_DONE]):
            return 0
        time.sleep(0.1)
    port, token = store.get(f"{_ADDRESS}{number}").decode().split()
    try:
        connection = socket.create_connection((os.environ["MASTER_ADDR"], int(port)), timeout=_CONNECT_S)
        connection.settimeout(None)
        connection.sendall(hello(token, int(os.environ["RANK"])))
    except OSError:  # it is gone already
        _start_afresh()
    heartbeat = Heartbeat(Channel(connection), when_gone=_start_afresh)
    while True:
        start = heartbeat.next_start()
        name, rank, size = start["name"], start["rank"], start["size"]
        engine_store = PrefixStore(name, _new_store())
        plans = connect_plans(engine_store, rank, size, start["limit_s"])
        follow(start, heartbeat, GroupReader(plans).receive, lambda: engine_store, local=False)  # noqa: B023 (called now)


def _start_afresh() -> NoReturn:
    """Replace the interpreter in this process, whatever its threads are stuck in, and follow the next rank 0."""
    os.environ[_NUMBER] = str(int(os.environ.get(_NUMBER, 1)) + 1)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # gloo's sockets would live on, and peers would wait at them
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class TorchrunRanks(Ranks):
    """The other processes of a torchrun job, for one engine."""

    plan_transport = "process_group"

    def __init__(self, cfg: Settings, num_threads: int) -> None:
        super().__init__(cfg)
        world_size = int(os.environ["WORLD_SIZE"])
        if self.size != world_size:
            raise IncompatibleError(
                f"executor.tp={self.size}: torchrun started {world_size} processes; set executor.tp={world_size}"
            )
        self._world = _world(self.limit_s)
        for rank, channel in self._world.items():
            start = start_message(cfg, name=self.name, rank=rank, size=self.size, threads=num_threads)
            channel.send(start=start | {"limit_s": self.limit_s})
        peers = [Peer(rank, channel, lambda: ("is gone", ""), channel.close) for rank, channel in self._world.items()]
        self.watch = Watch(peers, self.progress, cfg.executor.heartbeat_s, self.limit_s)

    def join(self, choices: Choices) -> Joined:
        def make() -> Joined:
            store = PrefixStore(self.name, _new_store())
            self.plans = GroupWriter(connect_plans(store, 0, self.size, self.limit_s))
            return join(choices, store, self.name, 0, self.progress, local=False)

        return self._join(make, choices.device)

    def _tell_end(self, now: bool) -> None:
        if now:  # they may be stuck: they start afresh, and so does the next engine
            for channel in self._world.values():
                channel.close()
            _world.cache_clear()
        elif self.plans is not None:
            self.plans.send(b"")


def _new_store() -> Any:
    """A separate connection to torchrun's store, because a wait on a connection keeps others from using it."""
    store, _, _ = next(iter(rendezvous("env://")))
    return store


_store = functools.cache(_new_store)
"""The connection for short questions."""


def connect_plans(store: Any, rank: int, size: int, limit_s: float) -> Any:
    """A process group of CPUs across the hosts, for plans only."""
    return connect(PrefixStore("plans", store), rank, size, torch.device("cpu"), limit_s, local=False, backend="gloo")


@functools.cache
def _world(limit_s: float) -> dict[int, Channel]:
    """Rank 0's channels to the others by rank; made at the first engine, kept until this process or a cell fails."""
    size, token, store, host = int(os.environ["WORLD_SIZE"]), secrets.token_hex(16), _store(), os.environ["MASTER_ADDR"]
    with _listen(host) as server:
        store.set(f"{_ADDRESS}{store.add(_COUNT, 1)}", f"{server.getsockname()[1]} {token}")
        try:
            channels = welcome(server, set(range(1, size)), token, limit_s)
        except TimeoutError as error:
            raise RankError(f"{error}; raise executor.startup_limit_s if they need longer") from None
    return dict(sorted(channels.items()))


def _listen(host: str) -> socket.socket:
    """Listen at a free port of the one address by which the other ranks know this host.

    Raises:
        RankError: `host` is not an address of this host.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise RankError(
            f"MASTER_ADDR={host} is not an address of this host, on which rank 0 runs ({error}); give torchrun's "
            f"--master-addr or --rdzv-endpoint of the host of rank 0"
        ) from None


def dismiss() -> None:
    """Tell the other ranks that no cell follows. Rank 0 calls it when it has nothing more to run."""
    _store().set(_DONE, "1")
