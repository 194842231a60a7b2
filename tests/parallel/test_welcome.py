"""Under torchrun, rank 0 lets in connections that prove to be a rank. No other connection delays or ends the start."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from framework.execution.parallel import torchrun, welcome
from framework.execution.parallel.welcome import hello
from framework.interfaces.errors import RankError

TOKEN = "5ca1ab1e"
STRANGERS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01" + bytes(range(256)) + b"\n",
    b"{}\n",
    b'{"token": null, "rank": 1}\n',
    b'{"token": "5ca1ab1e", "rank": "1"}\n',
    b'{"token": "5ca1ab1e"}\n',
    b"[" * 400 + b"\n",
    b"x" * 100_000,
    b'{"token": "\xff", "rank": 1}\n',
    hello("another", 1),
    hello(TOKEN, 7),
    hello(TOKEN, -1),
    hello(TOKEN, 0),
    b"",
]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`open(ranks, limit_s)` starts to listen and gives the address, and a function that waits for the outcome."""
    monkeypatch.setattr(welcome, "HELLO_S", 0.5)

    def open_door(ranks: set[int], limit_s: float) -> Any:
        server, outcome = socket.create_server(("127.0.0.1", 0)), []

        def run() -> None:
            try:
                outcome.append(welcome.welcome(server, ranks, TOKEN, limit_s))
            except TimeoutError as error:
                outcome.append(error)
            server.close()

        thread = threading.Thread(target=run)
        thread.start()

        def wait() -> Any:
            thread.join(20)
            return outcome[0]

        return server.getsockname(), wait

    return open_door


def test_strangers_change_nothing(door: Any) -> None:
    address, wait = door({1, 2}, 20)
    strangers = [socket.create_connection(address) for _ in STRANGERS]
    for stranger, says in zip(strangers, STRANGERS, strict=True):
        stranger.sendall(says)
    slow = socket.create_connection(address)
    slow.sendall(hello(TOKEN, 2)[:10])
    first = socket.create_connection(address)
    first.sendall(hello(TOKEN, 1))
    time.sleep(0.1)
    slow.sendall(hello(TOKEN, 2)[10:] + b'{"beat": 1}\n{"be')
    found = wait()
    peers = {rank: one.socket.getpeername() for rank, one in found.items()}
    assert peers == {1: first.getsockname(), 2: slow.getsockname()}
    slow.sendall(b'at": 2}\n')
    assert found[2].receive_ready() == ([{"beat": 1}, {"beat": 2}], True)  # what follows the hello is not lost
    for one in (*strangers, slow, first, *found.values()):
        one.close()


def test_a_silent_connection_does_not_outlast_the_limit(door: Any) -> None:
    started_s = time.monotonic()
    address, wait = door({1, 3}, 1.0)
    with socket.create_connection(address) as silent, socket.create_connection(address) as member:
        member.sendall(hello(TOKEN, 3))
        assert "ranks [1] did not connect within 1 s" in str(wait())
        assert time.monotonic() - started_s < 5
        silent.settimeout(5)
        assert silent.recv(1) == b""  # shut out
        member.settimeout(5)
        assert member.recv(1) == b""


def test_a_rank_is_let_in_once(door: Any) -> None:
    address, wait = door({1, 2}, 20)
    connections = []
    for rank in (1, 1, 2):
        connections.append(socket.create_connection(address))
        connections[-1].sendall(hello(TOKEN, rank))
        time.sleep(0.1)
    assert wait()[1].socket.getpeername() == connections[0].getsockname()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_it_listens_at_the_masters_address_alone(host: str) -> None:
    with torchrun._listen(host) as server:
        assert server.getsockname()[0] in ("127.0.0.1", "::1")
        with socket.create_connection((host, server.getsockname()[1]), timeout=5):
            pass


def test_a_master_that_is_elsewhere_is_named() -> None:
    with pytest.raises(RankError, match=r"MASTER_ADDR=192\.0\.2\.1 is not an address of this host.*--master-addr"):
        torchrun._listen("192.0.2.1")
