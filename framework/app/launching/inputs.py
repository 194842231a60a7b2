"""The files that a cell reads, by their content. A trace or profile that was rewritten is another file."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from framework.models.loading.packaged import packaged_gguf
from framework.registry import EXECUTORS, REGISTRIES

Inputs = dict[str, dict[str, str | None]]
"""Maps a role, such as `workload.path`, to `sha256` and `path`. The hash is None if the file is not on this machine."""
_SETTLED_S = 2.0
"""A file that changed less long ago may change again without another time stamp, so that its hash is not kept."""
_MAX_FILES = 10_000
NAMES_OF_PATHS = ("path", "file", "folder")
_TOKENIZER = ("tokenizer*", "*.jinja", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
_CONFIG = ("config.json", "generation_config.json")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_HUB_BLOB = re.compile(r"/blobs/([0-9a-f]{64})$")
_hashes: dict[str, tuple[tuple[int, ...], str]] = {}


def read_inputs(config: Mapping[str, Any]) -> Inputs:
    """Hash every file that the cell `config` (resolved) reads: what its plugins' parameters name, what they say
    themselves that they read (`reads(config)`), and of the model what the executor takes.

    A folder has one hash, over the names and contents of the files in it that count.

    Raises:
        ValueError: a folder holds more than 10,000 files.
    """
    inputs: Inputs = {}
    for kind, registry in REGISTRIES.items():
        node = config.get(kind)
        if kind == "tracker" or not isinstance(node, Mapping):
            continue
        for key, text in _paths(node, kind):
            inputs[key] = _entry(Path(text).expanduser(), text)
        cls = registry.entry(node["name"]).cls if node.get("name") in registry.names() else None
        for path in cls.reads(config) if cls is not None and hasattr(cls, "reads") else ():
            inputs[f"{kind}/{path.name}"] = _entry(path, str(path))
    return inputs | _model_inputs(config)


def check_inputs(cells: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a sweep, before its first cell runs, if one of its cells reads a file that does not exist.

    Raises:
        ValueError: naming key and path.
    """
    for config in cells:
        for role, about in read_inputs(config).items():
            if about["sha256"] is None and role not in ("model.path", "model.tokenizer"):  # these may be on the hub
                raise ValueError(f"{role}={about['path']} does not exist; paths count from {Path.cwd()}")


def without_paths(config: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """`config` with the hash in place of each path, so that the same content under another path is the same."""
    return {name: _replaced(value, str(name), inputs) for name, value in config.items()}


def file_hash(path: str) -> str | None:
    """SHA-256 of a file in hex, kept until its size or times change; None if it cannot be read.

    In the hub's cache large files are named by it, so that gigabytes of weights need not be read twice.
    """
    if "/snapshots/" in path and (named := _HUB_BLOB.search(os.path.realpath(path))):
        return named[1]
    try:
        status = os.stat(path)
        signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        kept = _hashes.get(path)
        if kept is not None and kept[0] == signature:
            return kept[1]
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S:
        _hashes[path] = signature, digest
    return digest


def files_hash(files: Iterable[tuple[str, str]]) -> str:
    """One hash over several files and the names that they go by."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def _entry(path: Path, text: str, patterns: Iterable[str] = ("**/*",)) -> dict[str, str | None]:
    if not path.is_dir():
        return {"sha256": file_hash(str(path)), "path": text}
    found = (file for pattern in patterns for file in path.glob(pattern) if file.is_file())
    files = sorted(set(itertools.islice(found, _MAX_FILES + 1)))
    if len(files) > _MAX_FILES:
        raise ValueError(
            f"{text} holds more than {_MAX_FILES} files, each of which a cell would hash; name a smaller one"
        )
    return {"sha256": files_hash((str(file.relative_to(path)), str(file)) for file in files), "path": text}


def _paths(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Values below `node` that are paths, by the name of their key, or because a file with that name exists."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _paths(value, f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _paths(value, f"{key}.{index}")
    elif isinstance(node, str) and node and len(node) < os.pathconf("/", "PC_PATH_MAX"):
        named = key.rpartition(".")[2].rpartition("_")[2] in NAMES_OF_PATHS
        if named or (os.sep in node and os.path.isfile(os.path.expanduser(node))):
            yield key, node


def _model_inputs(config: Mapping[str, Any]) -> Inputs:
    model = config.get("model")
    if not isinstance(model, Mapping):
        return {}
    executor = (config.get("executor") or {}).get("name")
    simulated = executor in EXECUTORS.names() and EXECUTORS.get(executor).is_simulated
    random, inline = model.get("weights") == "random", bool(model.get("config"))
    text, inputs = str(model.get("path") or ""), Inputs()
    path = Path(text).expanduser()
    if text.startswith("pypi:"):
        try:
            path = packaged_gguf(text.removeprefix("pypi:"))
        except ValueError:  # not installed; loading it will say so
            path = Path(os.devnull) / "x.gguf"
    is_here = path.is_dir() or path.suffix == ".gguf"
    if text and not (inline and (random or (simulated and (text.startswith("pypi:") or not is_here)))):
        patterns = [*_CONFIG, *(() if simulated else _TOKENIZER), *(() if simulated or random else _WEIGHTS)]
        inputs["model.path"] = _entry(path if is_here else _cached_folder(text, model.get("revision")), text, patterns)
    elif text and path.is_dir() and not simulated:  # of an inline config's folder, what is beside the config
        inputs["model.path"] = _entry(path, text, [*_CONFIG[1:], *_TOKENIZER])
    tokenizer = str(model.get("tokenizer") or "")
    if tokenizer and tokenizer != "byte" and not simulated:
        inputs["model.tokenizer"] = _entry(Path(tokenizer).expanduser(), tokenizer, _TOKENIZER)
    return inputs


def _cached_folder(repo_id: str, revision: str | None) -> Path:
    """Where the files of a hub id are on this machine; a path that leads nowhere if they are not."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    except ValueError:  # not an id
        found = None
    return Path(found).parent if isinstance(found, str) else Path(os.devnull) / repo_id


def _replaced(node: Any, key: str, inputs: Inputs) -> Any:
    if (about := inputs.get(key)) is not None and about["sha256"] is not None:
        return f"sha256:{about['sha256']}"
    if isinstance(node, Mapping):
        return {name: _replaced(value, f"{key}.{name}", inputs) for name, value in node.items()}
    if isinstance(node, list):
        return [_replaced(value, f"{key}.{index}", inputs) for index, value in enumerate(node)]
    return node
