"""`python -m framework plugins` and `doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framework.__main__ import main
from framework.registry import REGISTRIES

PLUGIN = '''
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS

@SCHEDULERS.register("listed")
class Listed(Scheduler):
    """A first sentence that is
    wrapped. A second one."""
    def __init__(self, *, size: int, weights: list[float] = [0.5]) -> None: ...
    def schedule(self, queue, plan) -> None: ...
'''


def test_plugins_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "listed.py"
    path.write_text(PLUGIN)
    assert main(["plugins", "scheduler", "--json", "--plugins", str(path)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["kind"] for entry in listed["plugins"]} == {"scheduler"}
    mine = next(entry for entry in listed["plugins"] if entry["name"] == "listed")
    assert mine["doc"] == "A first sentence that is wrapped."
    assert mine["file"] == str(path)
    assert mine["parameters"] == [
        {"name": "size", "type": "int"},
        {"name": "weights", "type": "list[float]", "default": [0.5]},
    ]


def test_plugins_as_a_table_shows_every_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    printed = capsys.readouterr().out
    for registry in REGISTRIES.values():
        for entry in registry.entries():
            assert entry.name in printed
    assert "plugins/schedulers/prefill_first.py" in printed
    assert "weights: list[float] = [0.5]" not in printed or "listed" in printed


def test_a_wrong_command_or_flag_is_told_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, meant in ((["swep"], "sweep"), (["compare", "--metrc", "x", "y"], "--metric")):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert f"(did you mean {meant}?)" in capsys.readouterr().err


def test_every_plugin_says_what_it_is() -> None:
    main(["plugins", "--json"])
    for registry in REGISTRIES.values():
        for entry in registry.entries():
            assert entry.doc, f"{entry.kind} {entry.name} ({entry.file}) has no docstring"


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--plugins", "nowhere.py"]) == 2
    assert "nowhere.py" in capsys.readouterr().err


def test_doctor_says_what_runs_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in ("Memory", "torch", "CUDA", "executor.tp", "sdpa", "eager", "runs here", "W&B login"):
        assert word in printed
