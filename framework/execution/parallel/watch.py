"""Rank 0's watch over the workers: one thread that gets their heartbeats and ends everything when a rank fails."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from framework.execution.parallel.control import Channel, Message, readable
from framework.interfaces.errors import RankError
from framework.models.layers.group import PeerError, Phase, Progress

_GRACE_S = 1.0
"""How long the rank at fault may take to be found after another one complained of it."""
_ALL_STUCK = 12
"""How many heartbeats may pass during a step without progress of any rank before the step is given up."""
_LOST = 2
"""How many heartbeats rank 0's main thread has, after a failure, to come back from a step."""
EXIT_LOST = 70
"""The exit code of a process whose main thread did not come back."""


@dataclass(slots=True)
class Peer:
    """A worker as rank 0 sees it."""

    rank: int
    channel: Channel
    describe_end: Callable[[], tuple[str, str]]
    """How the process ended, once the channel is closed, and the stack that it left, if any."""
    kill: Callable[[], None]
    count: int = 0
    """Its `Progress` at its last heartbeat."""
    heard_s: float = field(default_factory=time.monotonic)
    moved_s: float = field(default_factory=time.monotonic)
    phase: Phase = Phase.START
    ready: Message | None = None
    """What it reported when it was built."""
    complaint: str = ""
    """Its traceback after it lost a peer. The cause is elsewhere."""
    stack: str = ""
    gone: bool = False

    @property
    def name(self) -> str:
        """Rank, process and host, for messages."""
        return f"rank {self.rank} ({self.channel.name if self.rank else 'this process'})"

    def move(self, count: int, phase: Phase, now_s: float) -> None:
        """Record how far the rank is."""
        if (count, phase) != (self.count, self.phase):
            self.count, self.phase, self.moved_s = count, phase, now_s


class Watch:
    """Watches until `close`. The first failure is final: it kills every worker, which frees every wait for them.

    Args:
        progress: rank 0's own.
        limit_s: for each phase of the start, and for each step of the warm-up.
        abort: gives up rank 0's own collectives in flight, without waiting; called once, on failure.
    """

    def __init__(
        self,
        peers: list[Peer],
        progress: Progress,
        heartbeat_s: float,
        limit_s: float,
        abort: Callable[[], None] = lambda: None,
    ) -> None:
        self.peers, self.heartbeat_s, self.limit_s, self.abort = peers, heartbeat_s, limit_s, abort
        self.failure: RankError | None = None
        self.judging = False
        """Whether ranks that fall behind count as stalled. They do not before all of them are warm."""
        self.working = False
        """Whether a step is in flight."""
        self.submitting = False
        """Whether rank 0's main thread is on its way into a step."""
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

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()`, which a message of a worker makes true.

        Raises:
            RankError: a rank failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.failure is not None)
        self.check()

    def explain(self, error: PeerError) -> RankError:
        """The rank behind `error`, once it is known."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure is not None, self.heartbeat_s + 2 * _GRACE_S)
        return self.failure or RankError(str(error))

    def close(self) -> None:
        """Stop watching. Calling it again does nothing."""
        self._closing = True
        self._thread.join(timeout=2 * _GRACE_S)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 (the waits would never end)
            self._fail(f"the watch over the ranks ended: {error!r}")

    def _watch(self) -> None:
        interval_s = min(0.25, self.heartbeat_s / 8)
        with selectors.DefaultSelector() as selector:
            for peer in self.peers:
                selector.register(peer.channel.socket, selectors.EVENT_READ, peer)
            while not self._closing and self.failure is None:
                for key, _ in selector.select(interval_s):
                    self._hear(key.data)
                    if key.data.gone:
                        selector.unregister(key.fileobj)
                if self.failure is None:
                    self._judge(time.monotonic())
        if self.failure is not None:
            self._end_if_lost(self.failure)

    def _hear(self, peer: Peer) -> None:
        messages, alive = peer.channel.receive_ready()
        peer.heard_s = time.monotonic()
        for message in messages:
            if "beat" in message:
                peer.move(message["beat"], Phase(message["phase"]), peer.heard_s)
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
                self._fail(f"{peer.name} raised {message['failed']}", peer, trace=message["traceback"])
        if not alive:
            peer.gone = True
            if not self._closing and not peer.complaint:
                how, trace = peer.describe_end()
                self._fail(f"{peer.name} {how} while {self._doing(peer)}", peer, trace=trace)

    def _judge(self, now_s: float) -> None:
        if self._complained_s is not None and now_s - self._complained_s > _GRACE_S:
            peer = next(peer for peer in self.peers if peer.complaint)
            self._fail(f"{peer.name} lost its peers while {self._doing(peer)}", peer, trace=peer.complaint)
        self._own.move(self._progress.count, self._progress.phase, now_s)
        ranks = [self._own, *self.peers]
        if self.judging:
            self._judge_steps(ranks, now_s)
        else:
            self._judge_start(ranks, now_s)

    def _judge_start(self, ranks: list[Peer], now_s: float) -> None:
        """Find the ranks furthest behind at fault if they stay there too long after the last of them got there."""
        behind = min((peer.phase, peer.count) for peer in ranks)
        late = [peer for peer in ranks if (peer.phase, peer.count) == behind]
        if behind[0] is Phase.RUN and not self.working and all(peer.ready is not None for peer in self.peers):
            return  # between two steps of the warm-up
        if now_s - max(peer.moved_s for peer in late) > self.limit_s:
            limit = f"for {self.limit_s:g} s (executor.startup_limit_s; raise it if this needs longer)"
            text = f"no progress while {self._doing(late[-1])} {limit}"
            self._fail(f"{' and '.join(peer.name for peer in late)} stalled: {text}", *late)

    def _judge_steps(self, ranks: list[Peer], now_s: float) -> None:
        top = max(peer.count for peer in ranks)
        if top != self._top[0]:
            self._top = (top, now_s)
        limit = f"for {self.heartbeat_s:g} s (executor.heartbeat_s)"
        for peer in self.peers:
            if now_s - peer.heard_s > self.heartbeat_s:
                why = "it is stopped, or stuck in native code"
                self._fail(f"{peer.name} did not answer {limit} while {self._doing(peer)}: {why}")
        for peer in ranks:
            if peer.count < top and now_s - max(peer.moved_s, self._top[1]) > self.heartbeat_s:
                why = f"no progress {limit} while {self._doing(peer)}, and other ranks waited for it"
                self._fail(f"{peer.name} stalled: {why}", peer)
        limit_s = _ALL_STUCK * self.heartbeat_s
        if self.working and all(now_s - peer.moved_s > limit_s for peer in ranks):
            why = f"for {limit_s:g} s ({_ALL_STUCK} executor.heartbeat_s) while {self._doing(self._own)}"
            self._fail(f"no rank made progress {why}", *ranks)

    def _doing(self, peer: Peer) -> str:
        """The name of the phase that `peer` is in, for messages."""
        return "warming up" if peer.phase is Phase.RUN and not self.judging else peer.phase.label

    def _stack_of(self, peer: Peer) -> str:
        """Where the threads of `peer` are; empty if it does not say."""
        if peer is self._own:
            return all_stacks(except_thread=threading.get_ident())
        until_s = time.monotonic() + _GRACE_S
        with contextlib.suppress(OSError):
            peer.channel.send(dump=True)
        while not peer.stack and not peer.gone and (left_s := until_s - time.monotonic()) > 0:
            if readable(peer.channel.socket, left_s):
                self._hear(peer)
        return peer.stack

    def _fail(self, message: str, *peers: Peer, trace: str = "") -> None:
        """End everything. The traces of `peers` are asked for unless there is one already."""
        if self.failure is not None:
            return
        error = RankError(message)
        for peer in peers:
            if stack := trace or self._stack_of(peer):
                error.add_note(f"traceback of rank {peer.rank}:\n{stack.rstrip()}")
        if self.failure is not None:  # one of them said what is wrong when it was asked for its stack
            return
        with self._changed:
            self.failure = error
            self._changed.notify_all()
        for one in self.peers:
            one.kill()
        self.abort()

    def _end_if_lost(self, failure: RankError) -> None:
        """End the process if its main thread is stuck on its way into a step that cannot be given up."""
        until_s = time.monotonic() + _LOST * self.heartbeat_s
        while self.submitting:
            if time.monotonic() > until_s:
                notes = "\n".join(getattr(failure, "__notes__", []))
                print(f"servelab: {failure}; rank 0 can't be freed and ends\n{notes}", file=sys.stderr, flush=True)
                os._exit(EXIT_LOST)
            time.sleep(0.05)


def all_stacks(*, except_thread: int) -> str:
    """The stack of every thread of this process except one."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != except_thread:
            parts.append(f"thread {names.get(ident, ident)}:\n" + "".join(traceback.format_stack(frame)))
    return "\n".join(parts)
