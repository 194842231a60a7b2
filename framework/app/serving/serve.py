"""A served session as a cell: `workload=live`. The engine runs here, HTTP in a process beside it."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from framework import __version__
from framework.app.serving.engine_loop import EngineLoop
from framework.app.serving.settings import FrontSettings
from framework.app.serving.wire import Link
from framework.config.settings import Settings
from framework.execution.built import BuiltEngine
from framework.interfaces.errors import IncompatibleError
from framework.interfaces.eviction import NeedsFuture
from framework.interfaces.observer import Observer
from framework.registry import EVICTIONS

TRACE = "trace.jsonl"
START_LIMIT_S = 120.0


def check_live(cfg: Settings) -> None:
    """Refuse what cannot be served.

    Raises:
        IncompatibleError: naming the key and what to set.
    """
    if missing := [
        name for name in ("starlette", "uvicorn", "httptools", "prometheus_client") if not _importable(name)
    ]:
        raise IncompatibleError(f"workload=live needs {missing[0]}: pip install -c constraints.txt '.[serve]'")
    if cfg.executor.get("replicas", 1) != 1:
        raise IncompatibleError("workload=live serves with one engine; set executor.replicas=1")
    if issubclass(EVICTIONS.get(cfg.eviction.name), NeedsFuture):
        what = f"eviction={cfg.eviction.name} needs to know all requests beforehand"
        raise IncompatibleError(f"{what}; choose another policy for workload=live")


def listen(cfg: Settings) -> socket.socket:
    """The socket to serve on, taken before anything is loaded.

    Raises:
        ValueError: the address cannot be had.
    """
    serving = cfg.serving
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    try:
        listener = socket.create_server((serving.host, serving.port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"serving.host={serving.host} serving.port={serving.port}: {error.strerror}; set another serving.port, or "
            f"0 for any free one"
        ) from error
    return listener


def serve(
    cfg: Settings, built: BuiltEngine, listener: socket.socket, observers: Sequence[Observer], folder: Path
) -> None:
    """Serve until SIGTERM or Ctrl-C, end what runs, and write `trace.jsonl`. A second signal ends at once.

    Raises:
        FrontGoneError: the HTTP process ended by itself.
    """
    engine = built.single_engine
    engine.intake.tokenizer = None  # text is made in the HTTP process
    host, port = listener.getsockname()[:2]
    with _front(cfg, built, listener) as link:
        loop = EngineLoop(engine, link, observers, max_waiting=cfg.serving.max_waiting)
        with _drained_by_signals(loop):
            address = f"[{host}]" if ":" in host else host
            print(f"serving {cfg.model.name} at http://{address}:{port} (Ctrl-C ends it)", flush=True)
            engine.clock.restart()
            try:
                loop.run()
            finally:
                loop.write_trace(folder / TRACE)


@contextmanager
def _front(cfg: Settings, built: BuiltEngine, listener: socket.socket) -> Iterator[Link]:
    """The HTTP process, ready to answer."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "framework.app.serving.front", str(theirs.fileno()), str(listener.fileno())]
    process = subprocess.Popen(
        command,
        pass_fds=(theirs.fileno(), listener.fileno()),
        start_new_session=True,  # Ctrl-C is for the engine, which lets it finish
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
    )
    theirs.close()
    link = Link(ours)
    try:
        link.send(_settings(cfg, built))
        _wait_ready(ours, process)
        yield link
    finally:
        link.close()
        listener.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Return when the HTTP process has loaded its tokenizer."""
    connection.settimeout(START_LIMIT_S)
    try:
        header = connection.recv(8, socket.MSG_WAITALL)
        if len(header) == 8:
            connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
            connection.settimeout(None)
            return
    except TimeoutError:
        process.kill()
        raise RuntimeError(f"the HTTP process was not ready within {START_LIMIT_S:.0f} s") from None
    raise RuntimeError(f"the HTTP process ended at its start with code {process.wait()}; its last words are above")


def _settings(cfg: Settings, built: BuiltEngine) -> FrontSettings:
    kinds = ("scheduler", "eviction", "attention", "sampler", "graph")
    policies = {kind: str(built.effective.get(kind, cfg[kind].name)) for kind in kinds}
    return FrontSettings(
        model_name=cfg.model.name,
        model=dataclasses.asdict(cfg.model),
        vocab_size=built.model_config.vocab_size,
        max_model_len=built.max_model_len,
        max_body_bytes=cfg.serving.max_body_bytes,
        max_streams=cfg.serving.max_streams,
        read_limit_s=cfg.serving.read_limit_s,
        started=time.time(),
        version=__version__,
        policies=policies | {"executor": cfg.executor.name},
    )


@contextmanager
def _drained_by_signals(loop: EngineLoop) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C drains, the next one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: object) -> None:
        for each in previous:
            signal.signal(each, second)
        print("draining: requests that run are finished (a second signal ends them)", file=sys.stderr, flush=True)
        loop.drain()

    def second(number: int, frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    previous = {each: signal.signal(each, first) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def _importable(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
