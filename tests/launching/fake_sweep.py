"""`run.py` whose cells cost nothing and do what `model.name` says. A script, with the arguments of run.py."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from framework.app.cli import run as cli
from framework.app.experiment import hydra_cell, interruptible
from framework.app.launching import process
from framework.app.launching.resume_key import resume_key
from framework.records import atomic, tables
from framework.records.record import Record, RecordWriter


def run_cell(cfg):
    """Ends as its name says, and leaves a record if it can."""
    cell = hydra_cell(cfg)
    record = Record(status="completed", cell_id=cell.cell_id, requested=cell.config, resume_key=resume_key(cell.config))
    note = {"pid": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "from": time.monotonic()}
    with interruptible():
        try:
            ended = _behave(cfg.model.name, cell.folder)
            record.status = ended or record.status
        except KeyboardInterrupt:
            record.status, record.reason = "interrupted", "Ctrl-C"
        record.metrics = {"output_tokens_per_s": 100.0 + cfg.seed, "ttft_s/p99": 1.0 / (1 + cfg.seed)}
        try:
            RecordWriter(cell.folder).write(record)
        except ValueError as error:
            print(f"failed: {error}")
            return "failed"
    note["to"] = time.monotonic()
    (cell.folder / "note.json").write_text(json.dumps(note))
    if cfg.model.name == "crash_late":
        os.kill(os.getpid(), signal.SIGSEGV)
    if record.status == "interrupted":
        raise KeyboardInterrupt
    return record.status


def _behave(name: str, folder: Path) -> str | None:
    if name == "fills":
        Path("full").touch()
    if name == "exit":
        os._exit(7)
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if name in ("hang", "stubborn"):
        helper = subprocess.Popen(["sleep", "300"])
        (folder / "helper").write_text(str(helper.pid))
        time.sleep(300)
    if name == "slow":
        time.sleep(0.4)
    if name == "loud":
        print("hello from the cell")
        print("and its errors", file=sys.stderr)
    if name == "failing" and not Path("repaired").exists():
        return "failed"
    return "skipped" if name == "skipped" else None


@contextmanager
def replacing(path: Path):
    """Atomic writes on a disk without room, once a cell has filled it."""
    if Path("full").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with really_replacing(path) as temporary:
        yield temporary


really_replacing = atomic.replacing

if __name__ == "__main__":
    atomic.replacing = tables.replacing = replacing
    cli.run_cell = run_cell
    process.GRACE_S = 1.0
    sys.exit(cli.main(sys.argv[1:]))
