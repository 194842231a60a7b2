"""The wheel holds presets, plugins and Hydra's namespace, and its command works from another folder."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("framework", "plugins", "conf", "hydra_plugins", "pyproject.toml", "README.md", "LICENSE")
_RUN = """
import importlib.metadata, sys
(script,) = importlib.metadata.entry_points(group="console_scripts", name="servelab")
main = script.load()
import framework
print("from", framework.__file__)
sys.exit(main(["sweep", "--dry-run", "experiment=smoke", "executor=simulated", "scheduler=mlfq,fair"]))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel that was built from a copy of the tree, since building writes into it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True, timeout=100)
    (wheel,) = out.glob("servelab-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_every_file_that_runs_is_inside(unpacked: Path) -> None:
    for folder in ("framework", "plugins", "conf", "hydra_plugins"):
        own = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        needed = {path for path in own if "__pycache__" not in path.parts}
        assert [str(path) for path in sorted(needed) if not (unpacked / path).is_file()] == []
    (about,) = unpacked.glob("servelab-*.dist-info/entry_points.txt")
    scripts = configparser.ConfigParser()
    scripts.read(about)
    assert dict(scripts["console_scripts"]) == {"servelab": "framework.__main__:main"}


def test_the_command_composes_from_another_folder(unpacked: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert f"from {unpacked}" in done.stdout
    assert "2 cells: 2 runs; no GPU" in done.stdout
    assert not list(tmp_path.iterdir())
