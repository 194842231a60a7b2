"""A Ray cluster of two nodes on this machine. Needs Ray and its launcher for Hydra: pip install '.[sweep]'."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.clusters.sweep import AXES, LOAD, PYTHON, ROOT, check, free_port, skip, start, wait_for_cells, written

LIMIT_S = 1200
HOST = "127.0.0.1"
TRIES = 5


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Its address, and the two nodes, each with one CPU."""
    address = f"{HOST}:{free_port()}"
    ray = str(Path(PYTHON).with_name("ray"))
    common = ["--block", "--num-cpus=1", "--num-gpus=0", f"--node-ip-address={HOST}", "--disable-usage-stats"]
    common += ["--object-store-memory=100000000"]
    head = ["start", "--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false"]
    head += [f"--temp-dir={folder / 'ray'}", *common]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for name, arguments in (("head", head), ("worker", ["start", f"--address={address}", *common])):
            nodes.append(node([ray, *arguments], folder / f"{name}.log", address, len(nodes) + 1))
        yield address, nodes
    finally:
        for each in reversed(nodes):
            each.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)


def node(command: list[str], log: Path, address: str, count: int) -> subprocess.Popen[bytes]:
    """Start a node and wait until the cluster has `count` of them. Ray gives a node 30 s, so that a busy machine may
    need several attempts."""
    for _ in range(TRIES):
        process = start(command, log, RAY_worker_niceness="0")  # else a busy machine never comes to them
        code = f"import ray; ray.init({address!r}, log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
        while process.poll() is None:
            done = subprocess.run([PYTHON, "-c", code], check=False, capture_output=True, text=True)
            if done.stdout.strip() == str(count):
                return process
            time.sleep(1)
    return skip(f"Ray does not start here: {log.read_text()[-500:]}")


def workers(folder: Path) -> list[int]:
    """Processes that run a cell now: children of a raylet whose files are below `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            if not (path / "cmdline").read_bytes().startswith(b"ray::_run_job"):
                continue
            lines = (path / "status").read_text().splitlines()
            parent = next(line.split()[1] for line in lines if line.startswith("PPid:"))
            if str(folder).encode() in Path(f"/proc/{parent}/cmdline").read_bytes():
                found.append(int(path.name))
    return sorted(found)


def launch(folder: Path, log: str, *arguments: str) -> subprocess.Popen[bytes]:
    return start([PYTHON, str(ROOT / "run.py"), "-m", *arguments], folder.with_name(log))


def kill_a_worker(folder: Path) -> None:
    """One that has just begun its cell."""
    until_s = time.monotonic() + LIMIT_S
    there = workers(folder.parent)
    while not (begun := [pid for pid in workers(folder.parent) if pid not in there]):
        assert time.monotonic() < until_s, "no worker runs a cell"
        time.sleep(0.05)
    os.kill(begun[0], signal.SIGKILL)
    print(f"worker {begun[0]} killed")


def kill_node(process: subprocess.Popen[bytes]) -> None:
    """At once, with everything that it started."""
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"PPid:\t{process.pid}\n" in path.read_text():
                os.kill(int(path.parent.name), signal.SIGKILL)
    process.kill()
    process.wait()


def main() -> int:
    if importlib.util.find_spec("ray") is None:
        skip("needs Ray: pip install '.[sweep]'")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that the cluster ends as well
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as temporary,
        cluster(Path(temporary)) as (address, nodes),
    ):
        folder = Path(temporary) / "sweep"
        try:
            # 1: the process that launched the sweep is lost
            arguments = [*LOAD, "executor=simulated", "hydra/launcher=ray_cell"]
            arguments += [f"hydra.launcher.ray.init.address={address}", *AXES, f"hydra.sweep.dir={folder}"]
            first = launch(folder, "first.log", *arguments)
            wait_for_cells(folder, 4, LIMIT_S, lambda: first.poll() is None)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            before = written(folder)
            print(f"launching process killed after {len(before)} cells")
            # 2: a worker is lost, and then a node; the other one goes on
            second = launch(folder, "second.log", f"resume={folder}")
            wait_for_completed(folder, len(before) + 3, second)
            kill_a_worker(folder)
            wait_for_completed(folder, len(before) + 6, second)
            kill_node(nodes[1])
            assert second.wait(timeout=LIMIT_S) == 1
            ended = written(folder)
            print(f"second node killed; {len(ended)} of 20 cells completed")
            assert 17 <= len(ended) <= 19, "one cell per lost worker and node is what may be missing"
            # 3: the rest, on the node that is left
            assert launch(folder, "third.log", f"resume={folder}").wait(timeout=LIMIT_S) == 0
            check(folder, before | ended)
        except BaseException:
            for log in sorted(Path(temporary).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise
    return 0


def wait_for_completed(folder: Path, count: int, sweep: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while len(written(folder)) < count:
        assert time.monotonic() < until_s, f"{len(written(folder))} of {count} cells completed"
        assert sweep.poll() is None, f"the sweep ended with {len(written(folder))} completed cells"
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
