"""Rank 0's eye on the workers: one thread that hears their heartbeats and ends everything when a rank fails."""

from __future__ import annotations

import contextlib
import selectors
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from framework.execution.parallel.control import Channel, Message, readable
from framework.interfaces.errors import RankError
from framework.models.layers.group import PeerError, Progress

_GRACE_S = 1.0
"""How long the rank at fault may take to be found after another one complained of it."""
_ALL_STUCK = 12
"""Heartbeats without any progress of any rank, while a step runs, after which the step is given up."""


@dataclass(slots=True)
class Peer:
    """A worker as rank 0 sees it."""

    rank: int
    channel: Channel
    describe_end: Callable[[], tuple[str, str]]
    """How its process ended, once the channel is closed, and the stack that it left, if any"""
    kill: Callable[[], None]
    count: int = 0
    """Of `Progress`, at its last heartbeat"""
    heard_s: float = field(default_factory=time.monotonic)
    moved_s: float = field(default_factory=time.monotonic)
    ready: Message | None = None
    """What it reported when it was built"""
    complaint: str = ""
    """Its traceback after it lost a peer: the cause is elsewhere"""
    stack: str = ""
    gone: bool = False

    @property
    def name(self) -> str:
        """Process and host, for messages"""
        return self.channel.name if self.rank else "this process"


class Watch:
    """Watches until `close`. The first failure is final: it kills every worker, which frees whoever waits for them.

    Args:
        progress: rank 0's own.
        abort: gives up rank 0's own collectives in flight; called once, on failure.
    """

    def __init__(
        self, peers: list[Peer], progress: Progress, heartbeat_s: float, abort: Callable[[], None] = lambda: None
    ) -> None:
        self.peers, self.heartbeat_s, self.abort = peers, heartbeat_s, abort
        self.failure: RankError | None = None
        self.judging = False
        """Whether ranks that fall behind are stalled: not before all of them are warm"""
        self.working = False
        """Whether a step is in flight"""
        self._progress = progress
        self._own = Peer(0, peers[0].channel, lambda: ("", ""), lambda: None)
        self._changed = threading.Condition()
        self._closing = False
        self._top = (0, time.monotonic())
        self._complained_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="servelab-watch", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """
        Raises:
            RankError: a rank failed.
        """
        if self.failure is not None:
            raise self.failure

    def wait_for(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        """Until `condition()`, which a message of a worker makes true.

        Raises:
            RankError: a rank failed, or `limit_s` passed.
        """
        with self._changed:
            done = self._changed.wait_for(lambda: condition() or self.failure is not None, limit_s)
        self.check()
        if not done:
            raise RankError(f"{what} within {limit_s:g} s; raise executor.startup_limit_s if it needs longer")

    def explain(self, error: PeerError) -> RankError:
        """Which rank is behind `error`, once that is known."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure is not None, self.heartbeat_s + 2 * _GRACE_S)
        return self.failure or RankError(str(error))

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._closing = True
        self._thread.join(timeout=2 * _GRACE_S)

    def _run(self) -> None:
        interval_s = min(0.25, self.heartbeat_s / 8)
        with selectors.DefaultSelector() as selector:
            for peer in self.peers:
                selector.register(peer.channel.socket, selectors.EVENT_READ, peer)
            while not self._closing and self.failure is None:
                for key, _ in selector.select(interval_s):
                    self._hear(key.data)
                    if key.data.gone:
                        selector.unregister(key.fileobj)
                self._judge(time.monotonic())

    def _hear(self, peer: Peer) -> None:
        messages, alive = peer.channel.receive_ready()
        peer.heard_s = time.monotonic()
        for message in messages:
            if "beat" in message:
                if message["beat"] != peer.count:
                    peer.count, peer.moved_s = message["beat"], peer.heard_s
            elif "name" in message:
                peer.channel.name = message["name"]
            elif "ready" in message:
                with self._changed:
                    peer.ready = message["ready"]
                    self._changed.notify_all()
            elif "stack" in message:
                peer.stack = message["stack"]
            elif message.get("lost_peer"):
                peer.complaint = message["traceback"]
                self._complained_s = self._complained_s or peer.heard_s
            elif "failed" in message:
                self._fail(f"rank {peer.rank} ({peer.name}) raised {message['failed']}", peer, message["traceback"])
        if not alive:
            peer.gone = True
            if not self._closing and not peer.complaint:
                how, trace = peer.describe_end()
                self._fail(f"rank {peer.rank} ({peer.name}) {how}", peer, trace)

    def _judge(self, now_s: float) -> None:
        if self._complained_s is not None and now_s - self._complained_s > _GRACE_S:
            peer = next(peer for peer in self.peers if peer.complaint)
            self._fail(f"rank {peer.rank} ({peer.name}) lost its peers", peer, peer.complaint)
        if not self.judging or self.failure is not None:
            return
        own = self._own
        if own.count != self._progress.count:
            own.count, own.moved_s = self._progress.count, now_s
        ranks = [own, *self.peers]
        top = max(peer.count for peer in ranks)
        if top != self._top[0]:
            self._top = (top, now_s)
        for peer in self.peers:
            if now_s - peer.heard_s > self.heartbeat_s:
                limit = f"for {self.heartbeat_s:g} s (executor.heartbeat_s): it is stopped, or stuck in native code"
                self._fail(f"rank {peer.rank} ({peer.name}) did not answer {limit}", peer)
        for peer in ranks:
            if peer.count < top and now_s - max(peer.moved_s, self._top[1]) > self.heartbeat_s:
                waited = f"for {self.heartbeat_s:g} s (executor.heartbeat_s) while other ranks waited for it"
                self._fail(f"rank {peer.rank} ({peer.name}) stalled: no progress {waited}", peer, self._stack_of(peer))
        limit_s = _ALL_STUCK * self.heartbeat_s
        if self.working and all(now_s - peer.moved_s > limit_s for peer in ranks):
            self._fail(f"no rank made progress for {limit_s:g} s (12 executor.heartbeat_s)", own, self._stack_of(own))

    def _stack_of(self, peer: Peer) -> str:
        """Where its threads are; empty if it does not say."""
        if peer is self._own:
            return all_stacks(except_thread=threading.get_ident())
        until_s = time.monotonic() + _GRACE_S
        with contextlib.suppress(OSError):
            peer.channel.send(dump=True)
        while not peer.stack and not peer.gone and (left_s := until_s - time.monotonic()) > 0:
            if readable(peer.channel.socket, left_s):
                self._hear(peer)
        return peer.stack

    def _fail(self, message: str, peer: Peer, trace: str = "") -> None:
        if self.failure is not None:
            return
        error = RankError(message)
        if trace:
            error.add_note(f"traceback of rank {peer.rank}:\n{trace.rstrip()}")
        with self._changed:
            self.failure = error
            self._changed.notify_all()
        for one in self.peers:
            one.kill()
        self.abort()


def all_stacks(*, except_thread: int) -> str:
    """The stack of every thread of this process but one."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != except_thread:
            parts.append(f"thread {names.get(ident, ident)}:\n" + "".join(traceback.format_stack(frame)))
    return "\n".join(parts)
