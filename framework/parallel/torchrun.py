"""Ranks that `torchrun` started, on one host or several: rank 0 runs the cells, the others follow it.

    torchrun --nnodes 2 --nproc-per-node 8 ... run.py executor.tp=16 model=...

Rank 0 listens on a free port and says so in torchrun's store; the others connect and prove with a token from the store
that they belong here. They stay connected from cell to cell, so sweeps work.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import socket
import time
from typing import Any

from omegaconf import DictConfig

from framework.errors import IncompatibleError
from framework.execution.choices import Choices
from framework.parallel.connect import connect
from framework.parallel.control import Channel
from framework.parallel.follow import follow, start_message
from framework.parallel.group_plans import GroupReader, GroupWriter
from framework.parallel.heartbeat import Heartbeat
from framework.parallel.make_group import Joined, join
from framework.parallel.ranks import Ranks
from framework.parallel.watch import Peer, Watch

_ADDRESS = "servelab/rank0"
_NOTHING = "nothing to do"


def serve() -> int:
    """Be a rank above 0: build and run what rank 0 says, until it says goodbye. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 says what Ctrl-C means
    store = _store()
    while not store.check([_ADDRESS]):  # rank 0 may still be composing, or asking for a key
        time.sleep(0.1)
    address = store.get(_ADDRESS).decode()
    if address == _NOTHING:
        return 0
    port, token = address.split()
    channel = Channel(socket.create_connection((os.environ["MASTER_ADDR"], int(port))))
    channel.send(token=token, rank=int(os.environ["RANK"]))
    heartbeat = Heartbeat(channel)
    while True:
        start = heartbeat.next_start()
        plans = connect_plans(store, start["store"]["prefix"], start["rank"], start["size"], start["limit_s"])
        follow(start, heartbeat, GroupReader(plans).receive, local=False)


class TorchrunRanks(Ranks):
    """The other processes of a torchrun job, for one engine."""

    plan_transport = "process_group"

    def __init__(self, cfg: DictConfig, num_threads: int) -> None:
        super().__init__(cfg)
        world_size = int(os.environ["WORLD_SIZE"])
        if self.size != world_size:
            raise IncompatibleError(
                f"executor.tp={self.size}: torchrun started {world_size} processes; set executor.tp={world_size}"
            )
        self._world = _world()
        prefix = f"servelab-{secrets.token_hex(8)}"
        self._address = {"prefix": prefix}
        for rank, channel in self._world.items():
            start = start_message(cfg, rank=rank, size=self.size, threads=num_threads, store=self._address)
            channel.send(start=start | {"limit_s": self.limit_s})
        peers = [Peer(rank, channel, lambda: ("is gone", ""), channel.close) for rank, channel in self._world.items()]
        self.watch = Watch(peers, self.progress, cfg.executor.heartbeat_s)

    def join(self, cfg: DictConfig, choices: Choices) -> Joined:
        def make() -> Joined:
            prefix = self._address["prefix"]
            self.plans = GroupWriter(connect_plans(_store(), prefix, 0, self.size, self.limit_s))
            return join(cfg, choices, self._address, 0, self.progress, local=False, store=engine_store(prefix))

        return self._join(make)

    def end(self, *, now: bool) -> None:
        self.watch.close()
        if now:
            for channel in self._world.values():
                channel.close()
        elif hasattr(self, "plans"):
            self.plans.send(b"")
        if hasattr(self, "joined"):
            self.plans.close()
            self.joined.close()


@functools.cache
def _store() -> Any:
    from torch.distributed import rendezvous

    store, _, _ = next(iter(rendezvous("env://")))
    return store


def engine_store(prefix: str) -> Any:
    """The part of torchrun's store that belongs to one engine."""
    from torch.distributed import PrefixStore

    return PrefixStore(prefix, _store())


def connect_plans(store: Any, prefix: str, rank: int, size: int, limit_s: float) -> Any:
    """A process group on the hosts' processors, for plans alone."""
    import torch
    from torch.distributed import PrefixStore

    return connect(
        PrefixStore(f"{prefix}-plans", store), rank, size, torch.device("cpu"), limit_s, local=False, backend="gloo"
    )


@functools.cache
def _world() -> dict[int, Channel]:
    """Rank 0's channels to the others by rank; made at the first engine, kept until this process ends."""
    size = int(os.environ["WORLD_SIZE"])
    token = secrets.token_hex(16)
    channels: dict[int, Channel] = {}
    with socket.create_server(("", 0), backlog=size, family=socket.AF_INET) as server:
        _store().set(_ADDRESS, f"{server.getsockname()[1]} {token}")
        while len(channels) < size - 1:
            channel = Channel(server.accept()[0])
            hello = channel.receive() or {}
            if secrets.compare_digest(str(hello.get("token")), token):
                channels[int(hello["rank"])] = channel
            else:
                channel.close()
    return dict(sorted(channels.items()))


def dismiss() -> None:
    """Tell the others that no further cell follows. For rank 0, when it has nothing more to run."""
    if not _world.cache_info().currsize:
        _store().set(_ADDRESS, _NOTHING)
        return
    for channel in _world().values():
        with contextlib.suppress(OSError):
            channel.send(bye=True)
