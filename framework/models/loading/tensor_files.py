"""Which file of a Hugging Face folder holds which tensor, and under which name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from framework.toolkit.read_file import read_json_object

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_PREFIX = "model."
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The place of a tensor."""

    path: Path
    name: str
    """Its name in the file."""


def tensor_files(folder: Path) -> dict[str, StoredTensor]:
    """Maps the name of each tensor in a causal language model to its place.

    `model.safetensors` comes before an index beside it, as in `transformers`. A base model (`LlamaModel` and the like)
    is saved without the prefix `model.`, which is put back.

    Raises:
        ValueError: naming the file that is missing, damaged or of a format that is not read.
    """
    stored = _stored(folder)
    if any(name.startswith(_PREFIX) for name in stored):
        return stored
    return {name if name == HEAD else _PREFIX + name: place for name, place in stored.items()}


def has_weights(folder: Path) -> bool:
    """Whether the folder holds more than a config."""
    return (folder / SINGLE).exists() or (folder / INDEX).exists()


def _stored(folder: Path) -> dict[str, StoredTensor]:
    path = folder / SINGLE
    if path.exists():
        with open_tensors(path) as file:
            return {name: StoredTensor(path, name) for name in file.keys()}  # noqa: SIM118, it is not a dict
    index = folder / INDEX
    if not index.exists():
        others = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt*")) + sorted(folder.glob("consolidated*"))
        found = f" (only {others[0].name}, which is not read)" if others else ""
        remedy = (
            "convert it with transformers' save_pretrained, which writes safetensors"
            if others
            else "point model.path at a folder with safetensors weights, or set model.weights=random"
        )
        raise ValueError(f"{folder} holds neither {SINGLE} nor {INDEX}{found}; {remedy}")
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ValueError(f"{index} has no weight_map from tensors to files; download or save the model again")
    if outside := [file for file in weight_map.values() if "\0" in file or Path(file).name != file]:
        raise ValueError(f"{index} names {outside[0]!r}, which is not a file of the same folder")
    return {name: StoredTensor(folder / file, name) for name, file in weight_map.items()}


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """The open safetensors file.

    Raises:
        ValueError: naming it, if it is missing or damaged, also when a tensor is read from it.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing, though {INDEX} names it; download or save the model again")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a safetensors file: {error}") from error


@lru_cache(maxsize=8)
def head_is_its_own(folder: Path) -> bool:
    """Whether the folder has an LM head whose values differ from the embedding's.

    Then `transformers` (from version 5 on) does not tie them, whatever `tie_word_embeddings` says.
    """
    import torch

    files = tensor_files(folder)
    if HEAD not in files or EMBEDDING not in files:
        return False
    embedding, head = files[EMBEDDING], files[HEAD]
    with open_tensors(embedding.path) as first, open_tensors(head.path) as second:
        slices = [_slice(first, embedding), _slice(second, head)]
        if slices[0].get_shape() != slices[1].get_shape():
            return True
        return not all(
            torch.equal(*(each[start : start + _ROWS].float() for each in slices))
            for start in range(0, slices[0].get_shape()[0], _ROWS)
        )


def _slice(file: Any, place: StoredTensor) -> Any:
    if place.name not in file.keys():  # noqa: SIM118
        raise ValueError(f"{place.path} has no tensor {place.name}, though {INDEX} says so; download the model again")
    return file.get_slice(place.name)
