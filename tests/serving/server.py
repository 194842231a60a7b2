"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """Attributes: `url`, `folder` of its record, `process`."""

    def __init__(self, folder: Path, overrides: tuple[str, ...], environment: dict[str, str]) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "framework", "serve", "model=tiny", "tracker=files", "serving.port=0"]
        self.process = subprocess.Popen(
            [*command, f"hydra.run.dir={folder}", *overrides],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[str] = []
        self.url = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if found := re.search(r"serving .* at (http://\S+)", line):
                self.url = found[1]
                return
        raise AssertionError("".join(self.log))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Drain, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.log.append(self.process.communicate(timeout=60)[0])
        return self.process.returncode

    def num_descriptors(self) -> int:
        """Open files of the engine's process."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def served(folder: Path, *overrides: str, **environment: str) -> Iterator[Server]:
    """A simulated server unless `overrides` say otherwise; killed at the end if it still runs."""
    server = Server(folder, overrides or ("executor=simulated",), environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
