"""Every command and every Python block of the README works as printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from framework.app.launching.sweep_file import Sweep
from tests.analysis.records import write_sweep

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place that looks like the checkout to a command, and keeps what it writes."""
    for name in ("run.py", "framework", "plugins", "conf", "Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in blocks("python"):
        if found := re.search(r'register\("(\w+)"\)', block):
            (tmp_path / f"{found[1]}.py").write_text(block, encoding="utf-8")
    (tmp_path / "trace.jsonl").write_text(blocks("jsonl")[0], encoding="utf-8")
    return tmp_path


def execute(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "COLUMNS": "120"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("command", commands())
def test_command(command: str, folder: Path) -> None:
    words = shlex.split(command)
    for word in words:
        if word.startswith("multirun/"):
            write_sweep(folder / word)  # what an earlier command would have left there
        if word.startswith("resume="):
            started = folder / word.removeprefix("resume=")  # a sweep that completed nothing
            started.mkdir(parents=True)
            Sweep(folder=started, arguments=["executor=simulated", "workload=synthetic", "tracker=files"]).write()
    if words[0] == "make":
        if shutil.which("make") is None:
            pytest.skip("make is not installed")
        words.insert(1, "--dry-run")  # for real it is what runs this test
    elif words[0] == "python":
        words[0] = sys.executable
    done = execute(words, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout


@pytest.mark.parametrize("block", [block for block in blocks("python") if "LLM(" in block])
def test_python_block(block: str, folder: Path) -> None:
    done = execute([sys.executable, "-c", block], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Paris" in done.stdout


def test_a_folder_that_a_command_reads_was_made_by_one_before_it() -> None:
    made: set[str] = set()
    for command in commands():
        for word in shlex.split(command):
            name = word.removeprefix("resume=")
            assert not name.startswith("multirun/") or name in made, command
            if word.startswith("hydra.sweep.dir="):
                made.add(word.partition("=")[2])


def test_the_readme_has_commands() -> None:
    assert len(commands()) > 8
