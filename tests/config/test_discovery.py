"""Where plugins are found, and that a broken one is shown only to who asks for it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from framework.config.compose import compose
from framework.registry import SCHEDULERS, discovery

GOOD = """
from framework.interfaces import Scheduler
from framework.registry import SCHEDULERS

@SCHEDULERS.register("{name}")
class Found(Scheduler):
    def schedule(self, queue, plan) -> None: ...
"""
BROKEN = """
from framework.registry import SCHEDULERS
import a_package_that_nobody_has

@SCHEDULERS.register("would_be_{name}")
class Lost: ...
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own with an empty `plugins` folder."""
    (tmp_path / "found_here").mkdir()
    monkeypatch.setattr(discovery, "ROOT", tmp_path)
    monkeypatch.setattr(discovery, "PLACES", ("found_here",))
    monkeypatch.setattr(discovery, "_broken", {})
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "found_here"


def test_files_of_the_checkout_are_found_and_helpers_left_alone(checkout: Path) -> None:
    (checkout / "sub").mkdir()
    (checkout / "sub" / "one.py").write_text(GOOD.format(name="found_in_checkout"))
    (checkout / "helper.py").write_text("raise RuntimeError('a helper is imported by its users only')")
    discovery.discover()
    assert SCHEDULERS.get("found_in_checkout").__module__ == "found_here.sub.one"
    assert discovery.broken() == []


def test_a_broken_file_stops_nobody_else(checkout: Path) -> None:
    (checkout / "bad_file.py").write_text(BROKEN.format(name="lost"))
    (checkout / "syntax.py").write_text(GOOD.format(name="unparsable") + "def (:")
    (checkout / "zzz.py").write_text(GOOD.format(name="found_after_broken"))
    discovery.discover()
    assert "found_after_broken" in SCHEDULERS.names()
    assert len(discovery.broken()) == 2
    for name, error in (
        ("bad_file", "No module named 'a_package_that_nobody_has'"),
        ("would_be_lost", "line 3"),
        ("unparsable", "SyntaxError"),
    ):
        plugin = discovery.broken_for(name)
        assert plugin is not None
        assert error in plugin.message()
        assert str(checkout) in plugin.message()
    assert discovery.broken_for("found_after_broken") is None


def install(folder: Path, entry_points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `folder` look like a place where a package with these entry points is installed."""
    info = folder / "some_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: some-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[servelab.plugins]\n{entry_points}")
    monkeypatch.setattr(discovery, "_broken", {})
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()


def test_asking_for_a_broken_plugin_shows_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_installed.py").write_text(BROKEN.format(name="here"))
    install(tmp_path, "bad = bad_installed\n", monkeypatch)
    assert compose().scheduler.name == "chunked_prefill"
    with pytest.raises(ValueError, match=r"scheduler=bad: [\s\S]*a_package_that_nobody_has[\s\S]*line 3"):
        compose(["scheduler=bad"])


def test_a_listed_plugin_that_breaks_is_raised_at_once(tmp_path: Path) -> None:
    path = tmp_path / "listed.py"
    path.write_text(BROKEN.format(name="listed"))
    with pytest.raises(ValueError, match=r"listed\.py\]: .*[\s\S]*a_package_that_nobody_has"):
        discovery.discover([str(path)])


def test_listed_folders_and_repeated_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(GOOD.format(name="found_in_folder"))
    discovery.discover([str(tmp_path)])
    discovery.discover([str(tmp_path / "a.py"), str(tmp_path)])
    assert SCHEDULERS.entry("found_in_folder").file == str(tmp_path / "a.py")


def test_a_named_file_is_imported_however_it_registers(tmp_path: Path) -> None:
    source = GOOD.replace(
        '@SCHEDULERS.register("{name}")', 'def publish(): return SCHEDULERS.register("in_passing")\n@publish()'
    )
    (tmp_path / "indirect.py").write_text(source)
    discovery.discover([str(tmp_path / "indirect.py")])
    assert "in_passing" in SCHEDULERS.names()


def test_entry_points_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed_plugin.py").write_text(GOOD.format(name="found_by_entry_point"))
    install(tmp_path, "mine = installed_plugin\nworse = no_such_module_at_all\n", monkeypatch)
    discovery.discover()
    assert "found_by_entry_point" in SCHEDULERS.names()
    plugin = discovery.broken_for("worse")
    assert plugin is not None
    assert "no_such_module_at_all" in plugin.summary
