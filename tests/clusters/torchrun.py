"""torchrun over two hosts, each a network namespace, with executor.tp=2 on CPUs. Needs root and `ip` (iproute2)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.clusters.sweep import AXES, LOAD, PYTHON, ROOT, check, need, skip, start, summaries, wait_for_cells, written

ADDRESSES = ("10.77.43.1", "10.77.43.2")
PORT = "29577"
LIMIT_S = 1200
STARTUP_S = 60
"""How long a cell waits for a rank that does not come"""


@contextlib.contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Names of two network namespaces, joined by a cable."""
    names = [f"servelab-{os.getpid()}-{rank}" for rank in range(2)]
    cables = [f"sl{os.getpid() % 10_000}x{rank}" for rank in range(2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
                ip("link", "set", cable, "netns", name)
                ip("-n", name, "address", "add", f"{address}/24", "dev", cable)
                ip("-n", name, "link", "set", cable, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        yield names
    finally:
        for name in names:
            for process in processes(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def processes(host: str) -> list[int]:
    """Those that run there."""
    done = subprocess.run(["ip", "netns", "pids", host], check=False, capture_output=True, text=True)
    return list(map(int, done.stdout.split()))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def run(hosts: list[str], folder: Path, arguments: list[str]) -> list[subprocess.Popen[bytes]]:
    """torchrun on both hosts."""
    launched = []
    for rank, host in enumerate(hosts):
        command = ["ip", "netns", "exec", host, PYTHON, "-m", "torch.distributed.run", "--nnodes", "2"]
        command += ["--node-rank", str(rank), "--master-addr", ADDRESSES[0], "--master-port", PORT]
        command += ["--nproc-per-node", "1", str(ROOT / "run.py"), "-m", *arguments]
        launched.append(start(command, folder.with_name(f"host{rank}.log")))
    return launched


def wait_for_a_failed_cell(folder: Path) -> str:
    """Its reason, which names the rank."""
    until_s = time.monotonic() + 3 * STARTUP_S
    while time.monotonic() < until_s:
        records = [json.loads(path.read_text()) for path in summaries(folder).values()]
        if reasons := [record["reason"] for record in records if record["status"] == "failed"]:
            assert "rank 1 (" in reasons[0] or "ranks [1]" in reasons[0], reasons
            return str(reasons[0])
        time.sleep(0.5)
    raise AssertionError("no cell failed although its rank 1 was killed")


def main() -> int:
    need("ip")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary, two_hosts() as hosts:
        folder = Path(temporary) / "sweep"
        jobs: list[subprocess.Popen[bytes]] = []
        try:
            cells = [*LOAD, "executor.tp=2", "executor.device=cpu", f"executor.startup_limit_s={STARTUP_S}", *AXES]
            jobs = run(hosts, folder, [*cells, f"hydra.sweep.dir={folder}", "hydra.launcher.max_parallel=1"])
            wait_for_cells(folder, 4, LIMIT_S, lambda: all(job.poll() is None for job in jobs))
            time.sleep(4)  # into the next cell
            rank_1 = max(processes(hosts[1]))
            os.kill(rank_1, signal.SIGKILL)
            assert jobs[1].wait(timeout=60) != 0
            reasons = wait_for_a_failed_cell(folder)
            print(f"rank 1 (process {rank_1}) killed: {reasons}")
            jobs[0].send_signal(signal.SIGINT)  # its torchrun does not learn of the other one's end
            jobs[0].wait(timeout=60)
            before = written(folder)
            jobs = run(hosts, folder, [f"resume={folder}"])
            codes = [job.wait(timeout=LIMIT_S) for job in jobs]
            assert codes == [0, 0], codes
            check(folder, before)
        except BaseException:
            for log in sorted(Path(temporary).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-4000:]}", file=sys.stderr)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
