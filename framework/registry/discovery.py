"""Finds plugins: in the framework itself, in `plugins/**`, in installed packages, and in `plugins=[...]`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "framework/workloads",
    "framework/records/tracking",
    "framework/execution/local.py",
    "framework/simulation/simulated.py",
    "plugins",
)
"""Files, and folders with all that is below them."""
ENTRY_POINT_GROUP = "servelab.plugins"
_REGISTRATION = re.compile(r"^@?[\w.]+\.register\(\s*[\"'](\w+)[\"']", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that could not be imported. `names` are the choices it would have offered."""

    names: tuple[str, ...]
    source: str
    summary: str
    traceback: str

    def message(self) -> str:
        """Source, error and its last frames, as a message to the user who asked for one of `names`."""
        return f"{self.source} could not be imported: {self.summary}\n{self.traceback.rstrip()}"


_broken: dict[str, BrokenPlugin] = {}
_extra: set[str] = set()


def discover(extra: Iterable[str] = ()) -> None:
    """Import everything that registers a plugin. Idempotent.

    An import error is kept, and raised when that plugin is asked for, so that one broken file does not stop the others.

    Args:
        extra: Files, folders or module names from `plugins=[...]`.

    Raises:
        ValueError: an entry of `extra` does not exist, or fails to import.
    """
    for place in (ROOT / name for name in PLACES):
        for path in (place,) if place.is_file() else sorted(place.rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            _import_file(path, lambda module=module: importlib.import_module(module))  # type: ignore[misc]
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        _try_import(f"entry point {point.name} = {point.value}", (point.name,), point.load)
    for item in extra:
        _import_extra(item)


def broken() -> list[BrokenPlugin]:
    """Plugins that could not be imported so far."""
    return list(_broken.values())


def broken_for(name: str) -> BrokenPlugin | None:
    """The plugin that would have offered the choice `name`, had it been importable."""
    return next((plugin for plugin in _broken.values() if name in plugin.names), None)


def loaded(item: str) -> bool:
    """Whether `item` of `plugins=[...]` was given to `discover`."""
    return item in _extra


def extra() -> list[str]:
    """Every entry of `plugins=[...]` that was given to `discover`, files by their full path, for another process."""
    return [str(path.resolve()) if (path := Path(item).expanduser()).exists() else item for item in sorted(_extra)]


def _import_extra(item: str) -> None:
    path = Path(item).expanduser()
    if path.is_dir():
        files = sorted(path.rglob("*.py"))
    elif item.endswith(".py") or "/" in item:
        if not path.is_file():
            raise ValueError(f"plugins=[{item}]: no such file; paths count from {Path.cwd()}")
        files = [path]
    else:
        _try_import(item, (item,), lambda: importlib.import_module(item))
        files = []
    for file in files:
        _import_file(file.resolve(), lambda file=file: _load(file.resolve()), named=file == path)  # type: ignore[misc]
    for source in (item, *(str(file.resolve()) for file in files)):
        if source in _broken:
            raise ValueError(f"plugins=[{item}]: {_broken[source].message()}")
    _extra.add(item)


def _import_file(path: Path, load: Callable[[], object], *, named: bool = False) -> None:
    """Import `path` if it registers something or was `named`. Helpers are imported by the plugins that use them."""
    names = _REGISTRATION.findall(path.read_text(encoding="utf-8"))
    if names or named:
        _try_import(str(path), (path.stem, *names), load)


def _load(path: Path) -> object:
    """Import a file by path, under a name that is the same in every process."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module  # it lies in plugins/ too
    name = f"servelab_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _try_import(source: str, names: tuple[str, ...], load: Callable[[], object]) -> None:
    if source in _broken:
        return
    try:
        load()
    except Exception as error:  # noqa: BLE001 (a user's file; the error is kept and shown when its plugin is asked for)
        summary = "".join(traceback.format_exception_only(error)).strip()
        _broken[source] = BrokenPlugin(names, source, summary, _own_frames(error))


def _own_frames(error: BaseException) -> str:
    """The traceback without the import machinery around it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    return "".join(traceback.format_list([f for f in frames if f.filename != __file__]))
