"""What a result depends on, in 16 hex digits: the same key, the same cell, so that it need not run again."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framework.app.launching.inputs import Inputs, file_hash, files_hash, read_inputs, without_paths
from framework.records.plain import plain
from framework.registry import REGISTRIES, Registry
from framework.registry.discovery import ROOT

NO_INFLUENCE = ("study", "objective", "tracker", "plugins")
"""Keys of the configuration that do not change a result: the description of the cell, where copies of the record go,
and where plugins were found (their sources count). `record` counts, since the record would lack what it asks for."""
CELL_KEY = "SERVELAB_CELL_KEY"
"""Environment variable of a cell: the resume key that it had when its sweep began."""
_CODE = (".py", ".cpp", ".h")
_IMPORT = re.compile(r"^\s*(?:from|import) +([\w.]+)(?: +import +([\w ,]*))?", re.MULTILINE)
_FRAMEWORK = str(ROOT / "framework") + os.sep
_imported: dict[str, str | None] = {}
"""Hash of each source file when this process had imported its plugins."""


def resume_key(config: Mapping[str, Any], inputs: Inputs | None = None) -> str:
    """Hash over the resolved configuration, the content of the files that it reads, the framework's sources and those
    of the plugins that it names.

    Sources count by their text, committed or not: a commit that changes a document leaves every key as it was, one that
    adds a plugin leaves those of cells that do not use it. Files count by their content, wherever they lie.
    """
    inputs = read_inputs(config) if inputs is None else inputs
    digest = hashlib.sha256(config_key(without_paths(config, inputs)).encode())
    for role, about in sorted(inputs.items()):
        digest.update(f"{role}\0{about['sha256']}\n".encode())
    for role, hashed in code_hashes(config).items():
        digest.update(f"{role}\0{hashed}\n".encode())
    return digest.hexdigest()[:16]


def config_key(config: Mapping[str, Any]) -> str:
    """Hash over the resolved configuration alone, or over what a record says of it."""
    kept = {name: value for name, value in config.items() if name not in NO_INFLUENCE}
    return hashlib.sha256(json.dumps(plain(kept), sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def code_hashes(config: Mapping[str, Any]) -> dict[str, str]:
    """`framework` and each kind of plugin -> hash of its sources as they are now."""
    return {"framework": framework_hash(), **plugin_hashes(config)}


def framework_hash() -> str:
    """Hash of the framework's sources as they are now."""
    return files_hash((_name(file), file) for file in _framework_files())


def plugin_hashes(config: Mapping[str, Any]) -> dict[str, str]:
    """Each kind of plugin -> hash of the sources of the one that is chosen, as they are now."""
    return {
        kind: files_hash((_name(file), file) for file in files) if files else name
        for kind, (name, files) in _plugin_sources(config).items()
    }


def note_imported() -> None:
    """Remember the sources as they are now, when the plugins of this process have just been imported."""
    for entry in (entry for registry in REGISTRIES.values() for entry in registry.entries()):
        for file in _plugin_files(entry.cls) if entry.cls is not None else ():
            _imported.setdefault(file, file_hash(file))
    for file in _framework_files():
        _imported.setdefault(file, file_hash(file))


def changed_sources(config: Mapping[str, Any]) -> list[str]:
    """Files among the sources of a cell that are not as they were when this process imported its plugins."""
    files = _framework_files() + [file for _, files in _plugin_sources(config).values() for file in files]
    gone = [file for file in _imported.keys() - files if file.startswith(_FRAMEWORK)]
    return [file for file in files if file_hash(file) != _imported.get(file, file_hash(file))] + gone


def check_unchanged(config: Mapping[str, Any], key: str) -> None:
    """Refuse to run a cell by other code, or with other inputs, than its sweep began with.

    Raises:
        ValueError: naming what changed, as far as that is known here.
    """
    changed = ", ".join(map(str, changed_sources(config)))
    if changed:
        raise ValueError(f"{changed} changed after it was imported; run the cell again (resume=DIR, in a sweep)")
    begun = os.environ.get(CELL_KEY)
    if begun and begun != key:
        raise ValueError(
            "its sources, presets or input files changed since the sweep began, and other cells have run with those "
            "from before; resume=DIR runs what is missing with those of now"
        )


def what_changed(config: Mapping[str, Any], before: Inputs, after: Inputs) -> str:
    """Which sources or inputs changed while a cell ran, in words; "" if none did."""
    now = {role: about["sha256"] for role, about in after.items()}
    roles = [role for role, about in before.items() if about["sha256"] not in (None, now.get(role))]
    changed = [f"{role}={before[role]['path']}" for role in roles] + [str(file) for file in changed_sources(config)]
    return f"{', '.join(changed)} changed while it ran, so that it is not certain what it ran" if changed else ""


def _plugin_sources(config: Mapping[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Kind -> name and files of the chosen plugin; of what the model chooses, such as its family, all files."""
    sources = {}
    for kind, registry in REGISTRIES.items():
        if not registry.is_chosen:
            sources[kind] = "", _every_file(registry)
            continue
        chosen = config.get(kind)
        name = chosen.get("name") if isinstance(chosen, Mapping) else None
        if kind not in NO_INFLUENCE and name in registry.names():
            sources[kind] = str(name), _files_of_choice(registry, name)
    return sources


def _framework_files() -> list[str]:
    return sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(_FRAMEWORK) for name in names if name.endswith(_CODE)
    )


def _files_of_choice(registry: Registry, name: str) -> list[str]:
    cls = registry.entry(name).cls
    if cls is not None:
        return _plugin_files(cls)
    return _every_file(registry)  # chosen when the engine is built, so that any of them may matter


def _every_file(registry: Registry) -> list[str]:
    return sorted({file for entry in registry.entries() if entry.cls for file in _plugin_files(entry.cls)})


def _plugin_files(cls: type) -> list[str]:
    """The files of the plugin, of its base classes, and of the helpers that these import from their folders."""
    modules = {base.__module__ for base in inspect.getmro(cls)} - sys.stdlib_module_names
    files = {file for module in modules if (file := _file(module)) and not file.startswith(_FRAMEWORK)}
    folders = tuple({os.path.dirname(file) + os.sep for file in files} | {str(ROOT / "plugins") + os.sep})
    unread = set(files)
    while unread:
        file = unread.pop()
        for module in _imported_modules(file, file_hash(file)):
            other = _file(module)
            if other is not None and other.startswith(folders) and other not in files:
                files.add(other)
                unread.add(other)
    return sorted(files)


@functools.cache
def _imported_modules(file: str, digest: str | None) -> tuple[str, ...]:
    """What a file of that content may import: modules, and names that may be modules; none if it was deleted."""
    if digest is None:
        return ()
    text = Path(file).read_text(encoding="utf-8", errors="replace")
    pairs = ((package, names.split(",")) for package, names in _IMPORT.findall(text))
    return tuple(
        module
        for package, names in pairs
        for module in (package, *(f"{package}.{name.strip()}" for name in names if name.strip()))
    )


def _file(module: str) -> str | None:
    return getattr(sys.modules.get(module), "__file__", None)


def _name(file: str) -> str:
    """The name of a file: its place in the framework. A plugin may lie anywhere."""
    return file.removeprefix(_FRAMEWORK) if file.startswith(_FRAMEWORK) else os.path.basename(file)
