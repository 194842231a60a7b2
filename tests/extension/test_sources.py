"""A plugin from a file, a module or an installed package is like a built-in one: chosen, typed, listed, checked."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework.__main__ import main
from framework.config.compose import compose
from framework.registry import SCHEDULERS, discovery

EXAMPLE = (discovery.ROOT / "experiments/short_first_example/short_first.py").read_text()


@pytest.fixture(params=["file", "module", "entry_point"])
def source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """The kind of source, and what has to be listed in `plugins=[...]` to find it."""
    kind, name = request.param, f"outside_{request.param}"
    path = tmp_path / f"{name}.py"
    path.write_text(EXAMPLE.replace('"short_first"', f'"from_{kind}"'))
    if kind != "file":
        monkeypatch.syspath_prepend(tmp_path)
    if kind == "entry_point":
        info = tmp_path / "outside_plugins-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-plugins\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{discovery.ENTRY_POINT_GROUP}]\nmine = {name}\n")
    importlib.invalidate_caches()
    yield kind, {"file": str(path), "module": name, "entry_point": ""}[kind]
    sys.modules.pop(name, None)


def test_like_a_built_in_one(source: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    kind, listed = source
    name = f"from_{kind}"
    more = [f"plugins=[{listed}]"] if listed else []

    cfg = compose([f"scheduler={name}", "scheduler.max_prompts=3", *more])
    assert (cfg.scheduler.name, cfg.scheduler.max_prompts) == (name, 3)
    assert SCHEDULERS.build(cfg.scheduler).max_prompts == 3
    with pytest.raises(ValueError, match=r"scheduler\.max_prompts"):
        compose([f"scheduler={name}", "scheduler.max_prompts=three", *more])
    with pytest.raises(ValueError, match="did you mean 'max_prompts'"):
        compose([f"scheduler={name}", "scheduler.max_promts=3", *more])

    assert main(["plugins", "scheduler", "--json", *(["--plugins", listed] if listed else [])]) == 0
    plugins = json.loads(capsys.readouterr().out)["plugins"]
    mine = next(plugin for plugin in plugins if plugin["name"] == name)
    assert mine["parameters"] == [{"name": "max_prompts", "type": "int", "default": 8}]

    assert main(["check", f"scheduler={name}", "scheduler.max_prompts=2", *more, "--examples", "4"]) == 0
    assert "fails" not in capsys.readouterr().out
