"""A Slurm cluster of two nodes on this machine, without accounting. Needs root, `munge` and `slurm-wlm` of Debian."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.clusters.sweep import AXES, LOAD, PYTHON, ROOT, check, free_port, need, skip, start, wait_for_cells, written

LIMIT_S = 1200
CONFIG = """\
ClusterName=servelab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_1} CPUs=1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_2} CPUs=1
PartitionName=cells Nodes=node[1-2] Default=YES MaxTime=60 State=UP
"""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find it."""
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    ports = [free_port() for _ in range(3)]
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(folder=folder, host=socket.gethostname(), port=ports[0], port_1=ports[1], port_2=ports[2])
    )
    environment = {"SLURM_CONF": str(config)}
    files = {name: folder / f"munge.{name}" for name in ("socket", "log", "pid", "seed")}
    munge = ["munged", "--force", "--foreground", f"--key-file={key}", f"--socket={files['socket']}"]
    munge += [f"--log-file={files['log']}", f"--pid-file={files['pid']}", f"--seed-file={files['seed']}"]
    services = [munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "node1"], ["slurmd", "-D", "-N", "node2"]]
    running = []
    try:
        for number, service in enumerate(services):
            running.append(start(service, folder / f"service{number}.log", **environment))
            time.sleep(1)
        wait_for_nodes(environment)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=os.environ | environment, check=False, capture_output=True)
        for pid in workers(environment):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for service in reversed(running):
            service.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(service.pid, signal.SIGKILL)


def ask(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, check=False, capture_output=True, text=True)
    return done.stdout.strip()


def wait_for_nodes(environment: dict[str, str]) -> None:
    until_s = time.monotonic() + 60
    while ask(environment, "sinfo", "--noheader", "--format=%D %T") != "2 idle":
        if time.monotonic() > until_s:
            skip(f"Slurm does not start here: {ask(environment, 'sinfo')}")
        time.sleep(0.5)


def workers(environment: dict[str, str]) -> list[int]:
    """Python processes of the cells that run now, by process number."""
    needle = f"SLURM_CONF={environment['SLURM_CONF']}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (path / "environ").read_bytes().split(b"\0")
            is_cell = b"submitit" in (path / "cmdline").read_bytes() and (path / "exe").resolve().name != "srun"
            if needle in variables and is_cell and any(one.startswith(b"SLURM_PROCID=") for one in variables):
                found.append(int(path.name))
    return sorted(found)


def launch(folder: Path, log: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return start([PYTHON, str(ROOT / "run.py"), "-m", *arguments], folder.with_name(log), **environment)


def main() -> int:
    need("munged", "slurmctld", "slurmd", "sbatch")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that the cluster ends as well
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary, cluster(Path(temporary)) as environment:
        folder = Path(temporary) / "sweep"
        try:
            # 1: the process that launched the sweep is lost, and its jobs stay in the queue
            arguments = [*LOAD, "hydra/launcher=slurm_cell", "hydra.launcher.gpus_per_node=null"]
            arguments += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=20", "executor=simulated"]
            first = launch(folder, "first.log", environment, *arguments, *AXES, f"hydra.sweep.dir={folder}")
            wait_for_cells(folder, 4, LIMIT_S, lambda: first.poll() is None)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            # 2: resume waits for nobody and doubles nothing
            refused = launch(folder, "refused.log", environment, f"resume={folder}")
            assert refused.wait(timeout=LIMIT_S) != 0
            said = folder.with_name("refused.log").read_text()
            assert "still in the queue" in said, said
            print("launching process killed; resume: " + said.strip().splitlines()[-1])
            ask(environment, "scancel", said.rpartition("scancel ")[2].split()[0].strip(".'\""))
            while ask(environment, "squeue", "--noheader"):
                time.sleep(0.5)
            # 3: a worker is killed, and the others go on
            before = written(folder)
            second = launch(folder, "second.log", environment, f"resume={folder}")
            wait_for_cells(folder, len(before) + 3, LIMIT_S, lambda: second.poll() is None)
            there = workers(environment)
            while not (begun := [pid for pid in workers(environment) if pid not in there]):
                time.sleep(0.05)
            os.kill(begun[0], signal.SIGKILL)
            print(f"worker {begun[0]} killed")
            assert second.wait(timeout=LIMIT_S) == 1
            assert not ask(environment, "squeue", "--noheader"), "cells run after the sweep has ended"
            ended = written(folder)
            assert len(ended) == 19, f"{len(ended)} cells completed although one worker of 20 was killed"
            # 4: the rest
            assert launch(folder, "third.log", environment, f"resume={folder}").wait(timeout=LIMIT_S) == 0
            check(folder, before | ended)
        except BaseException:
            for log in sorted(Path(temporary).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
