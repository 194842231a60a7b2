"""What a result depends on, in 16 hex digits: the same key, the same cell, so that it need not run again."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from framework.records.plain import plain
from framework.registry import REGISTRIES, Registry
from framework.registry.discovery import ROOT

NO_INFLUENCE = ("study", "objective", "tracker", "plugins")
"""Keys of the configuration that change nothing in a result: what describes the cell, who gets a copy of the record,
where plugins were found (their sources count). `record` is not among them: the record would lack what it asks for."""
_CODE = (".py", ".cpp", ".h")
_IMPORT = re.compile(r"^\s*(?:from|import) +(plugins[\w.]*)(?: +import +([\w ,]*))?", re.MULTILINE)


def resume_key(config: Mapping[str, Any]) -> str:
    """Hash over the resolved configuration, the framework's sources and those of the plugins that it names.

    Sources count by their text, committed or not: a commit that changes a document leaves every key as it was, one that
    adds a plugin leaves those of cells that do not use it.
    """
    digest = hashlib.sha256((config_key(config) + _framework_sources()).encode())
    for kind, registry in REGISTRIES.items():
        if kind in NO_INFLUENCE:
            continue
        chosen = config.get(kind)
        name = chosen.get("name") if isinstance(chosen, Mapping) else None
        if name in registry.names():
            digest.update(f"{kind}\0{name}\0{_plugin_sources(registry, name)}\n".encode())
    return digest.hexdigest()[:16]


def config_key(config: Mapping[str, Any]) -> str:
    """Hash over the resolved configuration alone, or over what a record says of it."""
    kept = {name: value for name, value in config.items() if name not in NO_INFLUENCE}
    return hashlib.sha256(json.dumps(plain(kept), sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


@functools.cache
def _framework_sources() -> str:
    folder = ROOT / "framework"
    return _hash(sorted(path for path in folder.rglob("*") if path.suffix in _CODE))


def _plugin_sources(registry: Registry, name: str) -> str:
    """Of the plugin's module, of those of its base classes, and of the helpers in `plugins/` that these import."""
    cls = registry.entry(name).cls
    if cls is None:  # chosen when the engine is built, so that any of them may matter
        return registry.fingerprint()
    modules = {base.__module__ for base in inspect.getmro(cls)} - sys.stdlib_module_names
    files: set[Path] = set()
    while modules:
        module = sys.modules.get(modules.pop())
        file = getattr(module, "__file__", None)
        if file is None or Path(file) in files or (ROOT / "framework") in Path(file).parents:
            continue
        files.add(Path(file))
        for package, names in _IMPORT.findall(Path(file).read_text(encoding="utf-8")):
            modules |= {package, *(f"{package}.{name.strip()}" for name in names.split(","))}
    return _hash(sorted(files))


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
