"""Converting a GGUF file once into a Hugging Face folder in the cache.

The folder holds exactly the values that `gguf.quants.dequantize` gives, each tensor in the smallest of fp16, bf16 and
fp32 that represents it without loss, so it may take several times the space of the quantised file. `transformers` can
load it too.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import xxhash
from safetensors.torch import save_file

from framework.models.loading.checkpoint import write_index
from framework.models.loading.tokenizer import write_tokenizer

if TYPE_CHECKING:
    from framework.models.loading.gguf_file import GGUFFile

_FORMAT = 1
"""Raise it when what a conversion writes changes: older folders are then left alone and no longer used."""
_MAX_SHARD_BYTES = 2 << 30


def cache_folder() -> Path:
    """`$SERVELAB_CACHE`, or `~/.cache/servelab`."""
    return Path(os.environ.get("SERVELAB_CACHE") or Path.home() / ".cache" / "servelab")


def converted_folder(path: Path, *, with_tokenizer: bool = True) -> Path:
    """The converted form of the GGUF file `path`, made now unless the cache has it.

    The cache is keyed by content. Several processes may convert at once: each writes a folder of its own and the first
    to finish gives it its name.

    Args:
        with_tokenizer: False leaves the tokenizer out, for files whose own one isn't supported.

    Raises:
        ValueError: naming the file, if it can't be read or converted, or the cache can't be written.
    """
    folder = cache_folder() / "gguf" / _cache_key(path, with_tokenizer)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"{folder.parent} can't be written ({error.strerror}); set SERVELAB_CACHE to another"
        ) from error
    try:
        _convert(path, temporary, with_tokenizer)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _cache_key(path: Path, with_tokenizer: bool) -> str:
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    return f"{path.stem}-{digest.hexdigest()[:16]}-{_FORMAT}" + ("" if with_tokenizer else "-weights")


def _convert(path: Path, folder: Path, with_tokenizer: bool) -> None:
    from framework.models.loading.gguf_file import GGUFFile  # slow to import, and needed this once
    from framework.models.loading.gguf_tokenizer import read_gguf_tokenizer

    file = GGUFFile(path)
    config = file.config()
    if with_tokenizer:
        write_tokenizer(read_gguf_tokenizer(file), folder)
    _write_weights(file, folder)
    eos = {"eos_token_id": config["eos_token_id"]}
    (folder / "generation_config.json").write_text(json.dumps(eos), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _write_weights(file: GGUFFile, folder: Path) -> None:
    file_of: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    shard_bytes = total_bytes = num_shards = 0

    def flush() -> None:
        nonlocal shard, shard_bytes, num_shards
        num_shards += 1
        name = f"model-{num_shards:05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        file_of.update(dict.fromkeys(shard, name))
        shard, shard_bytes = {}, 0

    for name, values in file.tensors():
        tensor = _smallest_exact(torch.from_numpy(values.copy()))
        shard[name] = tensor
        shard_bytes += tensor.nbytes
        total_bytes += tensor.nbytes
        if shard_bytes >= _MAX_SHARD_BYTES:
            flush()
    if shard:
        flush()
    write_index(folder, file_of, total_bytes)


def _smallest_exact(values: torch.Tensor) -> torch.Tensor:
    for dtype in (torch.float16, torch.bfloat16):
        narrow = values.to(dtype)
        if torch.equal(narrow.to(values.dtype), values):
            return narrow
    return values
