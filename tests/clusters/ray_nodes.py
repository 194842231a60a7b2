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
    common = ["--block", "--num-cpus=1", "--num-gpus=0", "--disable-usage-stats", f"--node-ip-address={HOST}"]
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
        process = start(command, log)
        code = f"import ray; ray.init({address!r}, log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
        while process.poll() is None:
            done = subprocess.run([PYTHON, "-c", code], check=False, capture_output=True, text=True)
            if done.stdout.strip() == str(count):
                return process
            time.sleep(1)
    return skip(f"Ray does not start here: {log.read_text()[-500:]}")


def workers(folder: Path) -> list[int]:
    """Processes that run a cell now."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = str(folder / "ray").encode() in (path / "environ").read_bytes()
            if (path / "cmdline").read_bytes().startswith(b"ray::_run_job") and mine:
                found.append(int(path.name))
    return sorted(found)


def launch(folder: Path, log: str, *arguments: str) -> subprocess.Popen[bytes]:
    return start([PYTHON, str(ROOT / "run.py"), "-m", *arguments], folder.with_name(log))


def kill_a_worker(folder: Path) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not (there := workers(folder.parent)):
        assert time.monotonic() < until_s, "no worker runs a cell"
        time.sleep(0.05)
    os.kill(there[0], signal.SIGKILL)
    print(f"worker {there[0]} killed")


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
            # 1: a worker is killed
            arguments = [
                *LOAD,
                "executor=simulated",
                "hydra/launcher=ray_cell",
                f"hydra.launcher.ray.init.address={address}",
            ]
            first = launch(folder, "first.log", *arguments, *AXES, f"hydra.sweep.dir={folder}")
            wait_for_cells(folder, 4, LIMIT_S, lambda: first.poll() is None)
            kill_a_worker(folder)
            assert first.wait(timeout=LIMIT_S) == 1
            before = written(folder)
            print(f"{len(before)} of 20 cells completed")
            # 2: the process that launched the sweep is lost
            second = launch(folder, "second.log", f"resume={folder}")
            wait_for_completed(folder, len(before) + 3, second)
            os.killpg(second.pid, signal.SIGKILL)
            second.wait()
            # 3: a node is lost
            third = launch(folder, "third.log", f"resume={folder}")
            before = written(folder)
            wait_for_completed(folder, len(before) + 3, third)
            os.killpg(nodes[1].pid, signal.SIGKILL)
            print("launching process killed, then the second node")
            third.wait(timeout=LIMIT_S)
            before = written(folder)
            # 4: the rest, on the node that is left
            assert launch(folder, "fourth.log", f"resume={folder}").wait(timeout=LIMIT_S) == 0
            check(folder, before)
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
