"""Rank 0's door under torchrun. A connection that proves in time to be a rank is let in, and any other is shut out."""

from __future__ import annotations

import contextlib
import json
import secrets
import selectors
import socket
import time
from dataclasses import dataclass, field

from framework.execution.parallel.control import Channel

HELLO_BYTES = 512
"""A hello is shorter. A connection that sends more without the end of a line is not a rank."""
HELLO_S = 5.0
"""The time that a connection has to say hello."""


def hello(token: str, rank: int) -> bytes:
    """The first message of a rank on its connection."""
    return json.dumps({"token": token, "rank": rank}).encode() + b"\n"


@dataclass(slots=True)
class _Guest:
    until_s: float
    said: bytes = field(default=b"")


def welcome(server: socket.socket, ranks: set[int], token: str, limit_s: float) -> dict[int, Channel]:
    """Channels by rank, once each of `ranks` has made one. Other connections, however many, do not delay them.

    Args:
        server: listens already.
        token: what a rank has to know.

    Raises:
        TimeoutError: naming the ranks that did not connect within `limit_s`.
    """
    found: dict[int, Channel] = {}
    guests: dict[socket.socket, _Guest] = {}
    until_s = time.monotonic() + limit_s
    server.setblocking(False)
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        selector.register(server, selectors.EVENT_READ)

        def part(guest: socket.socket) -> None:
            selector.unregister(guest)
            del guests[guest]

        def part_with_all() -> None:
            for guest in guests:
                guest.close()

        stack.callback(part_with_all)
        while missing := ranks - set(found):
            now_s = time.monotonic()
            if now_s > until_s:
                for channel in found.values():
                    channel.close()
                raise TimeoutError(f"ranks {sorted(missing)} did not connect within {limit_s:g} s")
            for guest in [one for one, about in guests.items() if now_s > about.until_s]:
                part(guest)
                guest.close()
            for key, _ in selector.select(min(0.25, until_s - now_s)):
                if key.fileobj is server:
                    with contextlib.suppress(OSError):  # it is gone again
                        guest = server.accept()[0]
                        guest.setblocking(False)
                        guests[guest] = _Guest(now_s + HELLO_S)
                        selector.register(guest, selectors.EVENT_READ)
                    continue
                guest = key.fileobj  # type: ignore[assignment]
                about = guests[guest]
                rank = _hear(guest, about, token)
                if rank is None:
                    continue
                part(guest)
                if rank in missing and rank not in found:
                    guest.setblocking(True)
                    found[rank] = Channel(guest, about.said)
                else:
                    guest.close()
    return found


def _hear(connection: socket.socket, about: _Guest, token: str) -> int | None:
    """The rank that the connection has proved to be; -1 if it is not one, None while the hello is not complete."""
    try:
        data = connection.recv(HELLO_BYTES + 1 - len(about.said))
    except BlockingIOError:
        return None
    except OSError:
        return -1
    line, end, rest = (about.said + data).partition(b"\n")
    if not end:
        about.said = line
        return None if data and len(line) <= HELLO_BYTES else -1
    about.said = rest  # the beginning of what it says next
    try:
        said = json.loads(line)
        known = secrets.compare_digest(str(said["token"]).encode(), token.encode())
        return said["rank"] if known and isinstance(said["rank"], int) else -1
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1
