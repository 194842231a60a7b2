"""The sweep that every cluster has to finish, and what has to be true of it afterwards."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
NUM_CELLS = 20
AXES = ["scheduler=chunked_prefill,prefill_first", "seed=range(10)"]
LOAD = [
    "model=tiny",
    "workload=synthetic",
    "workload.num_requests=4",
    "workload.prompt_tokens_min=8",
    "workload.prompt_tokens_max=32",
    "workload.output_tokens_min=16",
    "workload.output_tokens_max=16",
    "engine.num_blocks=64",
    "tracker=files",
]


def skip(reason: str) -> NoReturn:
    """End with the reason on the screen."""
    print(f"skipped: {reason}")
    raise SystemExit(0)


def need(*programs: str) -> None:
    """Skip unless all of them can be run, as root."""
    missing = [one for one in programs if shutil.which(one) is None]
    if missing:
        skip(f"needs {', '.join(missing)}")
    if os.geteuid() != 0:
        skip("needs root, for services and network namespaces")


def summaries(folder: Path) -> dict[str, Path]:
    """Folder of a cell -> its finished record."""
    return {path.parent.name: path for path in folder.glob("*/summary.json")}


def wait_for_cells(folder: Path, count: int, limit_s: float, running: Callable[[], bool]) -> None:
    """Until `count` cells have a record.

    Raises:
        AssertionError: they did not in time, or the sweep is over before.
    """
    until_s = time.monotonic() + limit_s
    while len(summaries(folder)) < count:
        assert time.monotonic() < until_s, f"{len(summaries(folder))} of {count} cells within {limit_s:g} s"
        assert running(), f"the sweep ended with {len(summaries(folder))} records"
        time.sleep(0.2)


def check(folder: Path, before: dict[str, float]) -> None:
    """Every cell has one record, all completed, none lost, doubled or run again.

    Args:
        before: cell -> when its record was written, of those that were there before the sweep was resumed.

    Raises:
        AssertionError: naming what is wrong.
    """
    records: dict[str, dict[str, Any]] = {
        cell: json.loads(path.read_text()) for cell, path in summaries(folder).items()
    }
    assert len(records) == NUM_CELLS, f"{len(records)} records of {NUM_CELLS} cells"
    bad = {cell: record["reason"] for cell, record in records.items() if record["status"] != "completed"}
    assert not bad, bad
    assert len({record["resume_key"] for record in records.values()}) == NUM_CELLS, "a cell has two records"
    for cell, record in records.items():
        assert record["metrics"]["requests_completed"] == 4, cell
    for cell, written_s in before.items():
        assert (folder / cell / "summary.json").stat().st_mtime == written_s, f"cell {cell} ran twice"
    listed = json.loads((folder / "sweep.json").read_text())["cells"]
    assert sorted(cell["folder"] for cell in listed) == sorted(records), "sweep.json names other cells"
    print(f"{NUM_CELLS} cells completed, {len(before)} of them before the worker was killed, none lost or doubled")


def written(folder: Path) -> dict[str, float]:
    """Cell -> when its completed record was written."""
    found = {}
    for cell, path in summaries(folder).items():
        if json.loads(path.read_text())["status"] == "completed":
            found[cell] = path.stat().st_mtime
    return found


def start(command: Sequence[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A process of its own group, which writes to `log`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


PYTHON = sys.executable
