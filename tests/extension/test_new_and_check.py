"""`framework new` writes plugins that `framework check` passes, and neither overwrites nor guesses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from framework.__main__ import main
from framework.app.cli.new import FOLDERS
from framework.registry.discovery import ROOT


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_new_writes_is_right(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", kind, "my_policy", "--path", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"check {kind}=my_policy plugins=[{tmp_path}/my_policy.py]" in printed
    assert main(["check", f"{kind}=my_policy", f"plugins=[{tmp_path}/my_policy.py]", "--examples", "4"]) == 0
    assert f"{kind}=my_policy" in capsys.readouterr().out
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        config = str(ROOT / "pyproject.toml")
        done = subprocess.run(
            [sys.executable, "-m", *command, "--config", config, str(tmp_path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_the_test_that_new_writes_passes(tmp_path: Path) -> None:
    assert main(["new", "graph", "my_graph", "--path", str(tmp_path)]) == 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_mine.py").write_text("mine")
    assert main(["new", "scheduler", "mine", "--path", str(tmp_path)]) == 2
    assert "test_mine.py exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert main(["new", "scheduler", "chunked_prefill", "--path", str(tmp_path)]) == 2
    assert "scheduler=chunked_prefill exists" in capsys.readouterr().err
    assert main(["new", "scheduler", "My-Policy", "--path", str(tmp_path)]) == 2
    assert "'My-Policy'" in capsys.readouterr().err


def test_a_broken_plugin_is_reported_with_a_small_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "scheduler", "lazy", "--path", str(tmp_path)]) == 0
    path = tmp_path / "lazy.py"
    source = path.read_text()
    condition = "if request.num_prompt > 9 or plan.add(request) is not Verdict.OK:"
    path.write_text(source.replace("if plan.add(request) is not Verdict.OK:", condition))
    assert condition in path.read_text()
    assert main(["check", "scheduler=lazy", f"plugins=[{path}]", "--examples", "20"]) == 1
    printed = capsys.readouterr().out
    assert "scheduler Lazy planned nothing" in printed
    assert "the smallest failing case" in printed
    assert "request 0: arrives at 0.000 s, 10 prompt tokens, 1 output tokens of at most 1" in printed
    assert "request 1: arrives at" not in printed


def test_wrong_questions_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "seed=3"]) == 2
    assert "names no plugin to check" in capsys.readouterr().err
    assert main(["check", "scheduler=no_such_policy"]) == 2
    assert "no_such_policy" in capsys.readouterr().err
    assert main(["check", "scheduler=chunked_prefill", "--examples", "0"]) == 2
    assert "--examples=0" in capsys.readouterr().err
