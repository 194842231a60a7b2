"""Filling a model from the safetensors files of a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from framework.models.decoder import DecoderLM
from framework.models.layers.weight_slot import WeightSlot
from framework.models.loading.json_file import read_json
from framework.models.weight_slots import weight_slots

_DTYPES = ("F64", "F32", "F16", "BF16")
_INDEX = "model.safetensors.index.json"


def fill_from_folder(model: DecoderLM, folder: Path) -> None:
    """Copy each tensor's slice of this rank straight from the mapped files into its parameter.

    Raises:
        ValueError: naming file and tensor, for a file that is missing or truncated, a tensor that is missing,
            unexpected or of the wrong shape, or a dtype that isn't floating point.
    """
    slots = weight_slots(model)
    split = model.embed_tokens.group.size > 1
    file_of = _tensor_files(folder)
    _check_names(folder, file_of, slots, tied=model.config.tie_embeddings)
    names_of: dict[Path, list[str]] = {}
    for name in slots:
        names_of.setdefault(file_of[name], []).append(name)
    for path, names in names_of.items():
        with _open(path) as file:
            for name in names:
                _fill(path, file, name, slots[name], split=split)


def _fill(path: Path, file: Any, name: str, slot: WeightSlot, *, split: bool) -> None:
    source = file.get_slice(name)
    shape = tuple(source.get_shape())
    if shape != slot.full_shape:
        raise ValueError(
            f"{path}: tensor {name} has shape {list(shape)}, but the config asks for {list(slot.full_shape)}"
        )
    if (dtype := source.get_dtype()) not in _DTYPES:
        raise ValueError(f"{path}: tensor {name} has dtype {dtype}; supported are {', '.join(_DTYPES)}")
    # A whole tensor is a view of the mapped file; a slice is read into memory first, but only what it covers.
    slot.load(source if split else file.get_tensor(name))


def _tensor_files(folder: Path) -> dict[str, Path]:
    index = folder / _INDEX
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ValueError(f"{index} has no weight_map")
        return {name: folder / file for name, file in weight_map.items()}
    path = folder / "model.safetensors"
    if not path.exists():
        raise ValueError(
            f"{folder} holds neither model.safetensors nor {_INDEX}; "
            f"point model.path at a folder with safetensors weights, or set model.weights=random"
        )
    with _open(path) as file:
        return dict.fromkeys(file.keys(), path)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing, though {_INDEX} names it") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a safetensors file: {error}") from error


def _check_names(folder: Path, file_of: dict[str, Path], slots: dict[str, WeightSlot], *, tied: bool) -> None:
    if missing := [name for name in slots if name not in file_of]:
        raise ValueError(f"{folder}: tensor {missing[0]} is missing{_and_more(missing)}")
    unexpected = [name for name in file_of if name not in slots and not _is_derived(name, tied)]
    if unexpected:
        file = file_of[unexpected[0]]
        raise ValueError(f"{file}: tensor {unexpected[0]} doesn't belong to this model{_and_more(unexpected)}")


def _is_derived(name: str, tied: bool) -> bool:
    """Whether a tensor repeats what the model has anyway: older checkpoints hold such copies."""
    return name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def write_index(folder: Path, file_of: dict[str, str], total_bytes: int) -> None:
    """The index of a sharded checkpoint: tensor name -> file name."""
    index = {"metadata": {"total_size": total_bytes}, "weight_map": file_of}
    (folder / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
